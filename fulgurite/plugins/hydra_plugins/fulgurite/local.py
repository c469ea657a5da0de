"""Hydra launcher for concurrent jobs on this machine."""

from __future__ import annotations

from fulgurite.launchers.hydra_launcher import LazyLauncher


class LocalLauncher(LazyLauncher):
    """Launcher that runs each job in its own process, one per slot.

    Args:
        slots: Number of concurrent jobs; None: one per GPU, without GPUs one per two cores.
        gpus: GPUs per slot; None divides them evenly.
        cpus: Cores per slot; None divides them evenly, 0 sets no affinity.
    """

    implementation = "fulgurite.launchers.local_pool"

    def __init__(self, slots: int | None = None, gpus: int | None = None, cpus: int | None = None) -> None:
        super().__init__(slots=slots, gpus=gpus, cpus=cpus)
