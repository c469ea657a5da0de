"""Plain `nn.Module` nets, one family a file: no Lightning, no config."""
