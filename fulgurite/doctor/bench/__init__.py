"""Bandwidth and latency of collectives and links, and the thresholds they must meet."""
