"""Hydra's launcher for Slurm. What it does is written in `src/run/launchers/on_slurm.py`."""

from __future__ import annotations

from fulgurite.launchers.cluster.hydra_launcher import ScheduledLauncher


class SlurmLauncher(ScheduledLauncher):
    """Its keys stand in `fulgurite/conf/hydra/launcher/slurm.yaml`."""

    runs_on = "fulgurite.launchers.cluster.slurm"
