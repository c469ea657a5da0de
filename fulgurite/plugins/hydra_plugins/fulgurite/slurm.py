"""Hydra launcher for Slurm, implemented in `launchers.cluster.slurm`."""

from __future__ import annotations

from fulgurite.launchers.cluster.hydra_launcher import ScheduledLauncher


class SlurmLauncher(ScheduledLauncher):
    """Launcher for Slurm, configured by `conf/hydra/launcher/slurm.yaml`."""

    scheduler_module = "fulgurite.launchers.cluster.slurm"
