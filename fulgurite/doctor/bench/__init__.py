"""Bandwidth and latency of collectives and links, and their thresholds."""
