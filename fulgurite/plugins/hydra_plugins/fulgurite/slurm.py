"""Hydra launcher for Slurm; implemented in `fulgurite.launchers.cluster.slurm`."""

from __future__ import annotations

from fulgurite.launchers.cluster.hydra_launcher import ScheduledLauncher


class SlurmLauncher(ScheduledLauncher):
    """Launcher for Slurm; settings in `fulgurite/conf/hydra/launcher/slurm.yaml`."""

    scheduler_module = "fulgurite.launchers.cluster.slurm"
