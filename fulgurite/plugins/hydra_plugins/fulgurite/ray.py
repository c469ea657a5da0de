"""Hydra's launcher for Ray. What it does is written in `src/run/launchers/on_ray.py`."""

from __future__ import annotations

from fulgurite.launchers.cluster.hydra_launcher import ScheduledLauncher


class RayLauncher(ScheduledLauncher):
    """Its keys stand in `fulgurite/conf/hydra/launcher/ray.yaml`."""

    runs_on = "fulgurite.launchers.cluster.ray"
