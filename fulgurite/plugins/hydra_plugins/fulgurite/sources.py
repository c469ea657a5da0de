"""Hydra config sources for web servers, etcd, Consul and object stores, implemented in `fulgurite.sources`."""

from __future__ import annotations

from fulgurite.sources.config_source import SCHEMES, source_class

# Hydra registers the classes that it finds in the names of a module
globals().update({f"{scheme.capitalize()}ConfigSource": source_class(scheme) for scheme in SCHEMES})
