"""Sweep jobs on one machine: slots, local pool, progress, the job itself."""
