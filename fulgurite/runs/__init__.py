"""What runs and sweeps leave on disk: layout, readers, lock, provenance, sweep ledger and summary."""
