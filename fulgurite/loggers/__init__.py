"""Loggers that cannot stop a run: guarded delivery, adapters for each service, and `metrics.csv`."""
