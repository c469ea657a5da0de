"""Files of runs and sweeps: layout, reader, lock, provenance, sweep ledger and summary."""
