"""Hydra plugins of this project; Hydra finds them when `src/plugins` is on the path."""
