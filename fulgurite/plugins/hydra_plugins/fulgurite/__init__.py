"""Hydra plugins, which Hydra discovers as `hydra_plugins` on the path."""
