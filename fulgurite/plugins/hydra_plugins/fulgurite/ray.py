"""Hydra launcher for Ray, implemented in `fulgurite.launchers.cluster.ray`."""

from __future__ import annotations

from fulgurite.launchers.hydra_launcher import LazyLauncher


class RayLauncher(LazyLauncher):
    """Launcher for Ray, configured by `fulgurite/conf/hydra/launcher/ray.yaml`."""

    implementation = "fulgurite.launchers.cluster.ray"
