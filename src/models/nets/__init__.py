"""Plain `nn.Module` nets, one file per family, without Lightning and config."""
