"""Hydra launcher for Slurm, implemented in `fulgurite.launchers.cluster.slurm`."""

from __future__ import annotations

from fulgurite.launchers.hydra_launcher import LazyLauncher


class SlurmLauncher(LazyLauncher):
    """Launcher for Slurm, configured by `fulgurite/conf/hydra/launcher/slurm.yaml`."""

    implementation = "fulgurite.launchers.cluster.slurm"
