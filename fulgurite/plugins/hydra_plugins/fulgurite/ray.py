"""Hydra launcher for Ray, implemented in `fulgurite.launchers.cluster.ray`."""

from __future__ import annotations

from fulgurite.launchers.cluster.hydra_launcher import ScheduledLauncher


class RayLauncher(ScheduledLauncher):
    """Launcher for Ray, configured by `fulgurite/conf/hydra/launcher/ray.yaml`."""

    scheduler_module = "fulgurite.launchers.cluster.ray"
