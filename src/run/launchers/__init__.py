"""Where the jobs of a sweep run: in slots of this machine, as jobs of Slurm, as tasks of Ray."""
