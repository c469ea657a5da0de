"""Where the jobs of a sweep run beyond one machine: Slurm and Ray."""
