"""Grid sweeps: validated before the first job, run by any launcher, resumable."""
