"""Loaders of a store: files, HTTP, etcd, Consul, Vault, readers of yours, environment, flags, streams, functions."""
