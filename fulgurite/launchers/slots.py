"""Slots of a sweep on one machine, with the GPUs and cores of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fulgurite.core.errors import ConfigError
from fulgurite.core.formatting import counted, parse_count

T = TypeVar("T")

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
NUM_THREADS = "OMP_NUM_THREADS"
DRIVER_DIR = Path("/proc/driver/nvidia/gpus")  # one directory per GPU


@dataclass(frozen=True)
class Slot:
    """GPUs and cores for one job at a time."""

    number: int  # from 0
    gpus: tuple[str, ...] | None  # for `CUDA_VISIBLE_DEVICES`; empty hides all GPUs, None leaves the variable alone
    cores: tuple[int, ...]  # core IDs; empty leaves the CPU affinity alone

    def bind(self) -> None:
        """Set GPUs, CPU affinity and thread count, before CUDA is initialized."""
        if self.gpus is not None:
            os.environ[VISIBLE_GPUS] = ",".join(self.gpus)
        if not self.cores:
            return
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        given = parse_count(os.environ.get(NUM_THREADS, "").split(",")[0])
        threads = min(len(self.cores), given or len(self.cores))
        os.environ[NUM_THREADS] = str(threads)

        import torch  # torch reads OMP_NUM_THREADS on import only

        torch.set_num_threads(threads)


def allocate_slots(
    slots: int | None = None,
    gpus: int | None = None,
    cpus: int | None = None,
    available: tuple[Sequence[str], Sequence[int]] | None = None,
) -> list[Slot]:
    """Divide GPUs and cores among slots.

    The numbers are the arguments of `LocalLauncher`. If `available` is None, the GPUs and cores of this process are
    detected.
    """
    visible, cores = available or (visible_gpus(os.environ), visible_cores())
    if findings := _check_numbers(slots=slots, gpus=gpus, cpus=cpus):
        raise ConfigError(findings)
    slots = slots or _num_slots(len(visible), len(cores), gpus, cpus)
    lacking = [*_check_capacity("gpus", slots, gpus, len(visible)), *_check_capacity("cpus", slots, cpus, len(cores))]
    if lacking:
        raise ConfigError(lacking)
    of_gpus = _split_evenly(visible, slots, gpus) if visible else [()] * slots
    of_cores = [()] * slots if cpus == 0 else _split_evenly(cores, slots, cpus)
    has_none_to_hide = not visible and gpus != 0
    return [Slot(number, None if has_none_to_hide else of_gpus[number], of_cores[number]) for number in range(slots)]


def visible_gpus(env: Mapping[str, str]) -> list[str]:
    """Return the names of the visible GPUs, without initializing CUDA."""
    if (given := env.get(VISIBLE_GPUS)) is not None:
        names: list[str] = []
        for name in (part.strip() for part in given.split(",")):
            if name in {"", "-1"}:  # -1 ends the list, as in CUDA
                break
            names.append(name)
        return names
    return [str(number) for number in range(len(list(DRIVER_DIR.glob("*"))))]


def visible_cores() -> list[int]:
    """Return the cores in this process's CPU affinity."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _check_numbers(**numbers: Any) -> list[str]:
    least = {"slots": 1}
    return [
        f"hydra.launcher.{name}={str(value).lower()}: is not null or an integer of at least {least.get(name, 0)}."
        for name, value in numbers.items()
        if value is not None and (type(value) is not int or value < least.get(name, 0))
    ]


def _check_capacity(name: str, slots: int, each: int | None, available: int) -> Iterator[str]:
    if each and slots * each > available:
        most = available // each
        remedy = f"hydra.launcher.slots={most}" if most else f"hydra.launcher.{name}=null"
        need = f"{counted(slots, 'slot')} need {slots * each}"
        yield f"hydra.launcher.{name}={each}: {need}, but this process sees {available}. Set {remedy}."


def _num_slots(gpus: int, cores: int, gpus_each: int | None, cores_each: int | None) -> int:
    if gpus and gpus_each != 0:
        return max(1, gpus // (gpus_each or 1))
    # half of the cores: data loading and checkpoints need some, and each job needs memory
    return max(1, cores // cores_each if cores_each else max(cores // 2, min(cores, 2)))


def _split_evenly(devices: Sequence[T], slots: int, each: int | None) -> list[tuple[T, ...]]:
    """Return equally many devices per slot, and reuse them if there are too few."""
    if each is None and len(devices) < slots:
        return [(devices[number % len(devices)],) for number in range(slots)]
    size = len(devices) // slots if each is None else each
    return [tuple(devices[number * size : (number + 1) * size]) for number in range(slots)]
