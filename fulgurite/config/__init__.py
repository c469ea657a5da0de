"""Compose and read a config: overrides, origins of keys, target policy, YAML limits, schema of the library's keys."""
