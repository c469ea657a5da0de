"""Fulgurite: a Hydra-configured Lightning training template. The layout is explained in `src/README.md`."""
