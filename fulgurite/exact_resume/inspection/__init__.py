"""Inspect single values: the files that they are mapped from, and containers that repeat."""
