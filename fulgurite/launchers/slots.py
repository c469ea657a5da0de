"""The places of a sweep on one machine: how many jobs run at the same time, and which GPUs and cores each has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fulgurite.core.errors import ConfigError

T = TypeVar("T")

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
NUM_THREADS = "OMP_NUM_THREADS"
DRIVER_DIR = Path("/proc/driver/nvidia/gpus")  # one folder a GPU


@dataclass(frozen=True)
class Slot:
    """What one job at a time has to itself.

    Attributes:
        number: Counted from 0.
        gpus: Names as `CUDA_VISIBLE_DEVICES` has them; empty hides all; None leaves to a job what it sees.
        cores: Numbers of the system; empty binds to none.
    """

    number: int
    gpus: tuple[str, ...] | None
    cores: tuple[int, ...]

    def bind(self) -> None:
        """Bind this process to the place: before CUDA is initialised, with no more threads than it has cores."""
        if self.gpus is not None:
            os.environ[VISIBLE_GPUS] = ",".join(self.gpus)
        if not self.cores:
            return
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        given = os.environ.get(NUM_THREADS, "").split(",")[0]
        threads = min(len(self.cores), int(given)) if given.isdigit() and int(given) > 0 else len(self.cores)
        os.environ[NUM_THREADS] = str(threads)

        import torch  # the variable was read when it was imported

        torch.set_num_threads(threads)


def allocate_slots(
    slots: int | None = None,
    gpus: int | None = None,
    cpus: int | None = None,
    found: tuple[Sequence[str], Sequence[int]] | None = None,
) -> list[Slot]:
    """Return the places that a machine gives.

    Args:
        slots: How many; None takes one for each `gpus` GPUs, where there are none one for each `cpus` cores.
        gpus: GPUs of each; None shares out all, and where there are fewer than places several have the same one.
        cpus: Cores of each; None shares them out likewise, 0 binds none.
        found: GPUs and cores there are; None looks.

    Raises:
        ConfigError: All that is wrong with the numbers.
    """
    visible, cores = found or (visible_gpus(os.environ), visible_cores())
    _raise_findings(_check_numbers(slots=slots, gpus=gpus, cpus=cpus))
    slots = slots or _num_slots(len(visible), len(cores), gpus, cpus)
    _raise_findings(
        [*_check_capacity("gpus", slots, gpus, len(visible)), *_check_capacity("cpus", slots, cpus, len(cores))]
    )
    of_gpus = _split_evenly(visible, slots, gpus) if visible else [()] * slots
    of_cores = [()] * slots if cpus == 0 else _split_evenly(cores, slots, cpus)
    has_none_to_hide = not visible and gpus != 0
    return [Slot(number, None if has_none_to_hide else of_gpus[number], of_cores[number]) for number in range(slots)]


def visible_gpus(env: Mapping[str, str]) -> list[str]:
    """Return the names of the GPUs that this process may use; torch is not asked, it would initialise CUDA.

    Args:
        env: `CUDA_VISIBLE_DEVICES` in it wins; a number of -1 ends the list, as it does for CUDA.
    """
    if (given := env.get(VISIBLE_GPUS)) is not None:
        names: list[str] = []
        for name in (part.strip() for part in given.split(",")):
            if name in {"", "-1"}:
                break
            names.append(name)
        return names
    return [str(number) for number in range(len(list(DRIVER_DIR.glob("*"))))]


def visible_cores() -> list[int]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _raise_findings(findings: Sequence[str]) -> None:
    if findings:
        raise ConfigError(findings)


def _check_numbers(**asked: Any) -> list[str]:
    least = {"slots": 1}
    return [
        f"hydra.launcher.{name}={str(value).lower()}: must be a whole number, {least.get(name, 0)} or more, or null"
        for name, value in asked.items()
        if value is not None and (type(value) is not int or value < least.get(name, 0))
    ]


def _check_capacity(name: str, slots: int, each: int | None, there: int) -> Iterator[str]:
    if each and slots * each > there:
        most = there // each
        remedy = (
            f"hydra.launcher.slots={most}" if most else f"hydra.launcher.{name}=null, which shares out what there is"
        )
        need = f"{slots} slot{'s' * (slots > 1)} would need {slots * each}"
        yield f"hydra.launcher.{name}={each}: {need}, and this process sees {there}; use {remedy}"


def _num_slots(gpus: int, cores: int, gpus_each: int | None, cores_each: int | None) -> int:
    if gpus and gpus_each != 0:
        return max(1, gpus // (gpus_each or 1))
    # half of them: what loads data or writes a checkpoint needs some too, and each job its memory
    return max(1, cores // cores_each if cores_each else max(cores // 2, min(cores, 2)))


def _split_evenly(things: Sequence[T], slots: int, each: int | None) -> list[tuple[T, ...]]:
    """Return equal shares, so that a job ends the same wherever it runs; single ones in turn where too few."""
    if each is None and len(things) < slots:
        return [(things[number % len(things)],) for number in range(slots)]
    size = len(things) // slots if each is None else each
    return [tuple(things[number * size : (number + 1) * size]) for number in range(slots)]
