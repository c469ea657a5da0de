"""Hydra's launcher for Ray. What it does is written in `src/run/launchers/on_ray.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra.core.utils import JobReturn

from src.run.launchers.scheduled_launcher import ScheduledLauncher


class RayLauncher(ScheduledLauncher):
    """Its keys stand in `configs/hydra/launcher/ray.yaml`."""

    def check(self) -> None:
        """Refuse keys that cannot be used."""
        # Hydra imports every plugin at every start, also to complete a word
        from src.run.launchers.on_ray import checked

        checked(self.settings)

    def stream(
        self, jobs: Iterator[tuple[int, Sequence[str]]], at_once: int | None = None
    ) -> Iterator[tuple[int, JobReturn]]:
        """Run jobs, as `src/run/launchers/streaming.py` says."""
        from src.run.launchers.on_ray import stream_on_ray

        return stream_on_ray(self, self.settings, jobs, at_once)
