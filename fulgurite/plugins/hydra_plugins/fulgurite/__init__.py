"""Hydra plugins; Hydra discovers them through the namespace package `hydra_plugins` on the path."""
