"""What workers change is found, and what they report is read whole at any moment."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torchmetrics import MetricCollection as Compose

from fulgurite.exact_resume.workers.worker_copies import SLOT_BYTES, WorkerWatch, _fingerprints


def test_names_are_read_while_workers_write_them() -> None:
    watch, names = WorkerWatch(2, ()), [f"Data.attribute_{number}" for number in range(20)]
    watch._write(0, names[:1])

    def write() -> None:
        for count in range(1, 2000):
            watch._write(1, names[: 1 + count % len(names)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        writer = Thread(target=write)
        writer.start()
        while writer.is_alive():
            found = watch.names()
            assert found == names[: len(found)]
    finally:
        writer.join()
        sys.setswitchinterval(interval)
    assert watch.names() == names


def test_names_beyond_the_space_of_a_worker_are_left_out() -> None:
    watch, names = WorkerWatch(1, ()), [f"Data.attribute_{number}" for number in range(SLOT_BYTES)]
    watch._write(0, names)
    found = watch.names()
    assert found == names[: len(found)]
    assert len(found) > 50


class Keeps:
    """A data set that keeps something, and a function that keeps the rest."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept


def with_default(rows: list[int], seen: list[int] = []) -> list[int]:  # noqa: B006 - as users write it
    return [*rows, *seen]


@pytest.mark.parametrize(
    ("root", "change", "name"),
    [
        (Keeps(multiprocessing.Value("i", 0)), lambda root: setattr(root.kept, "value", 1), "Keeps.kept"),
        (Keeps(multiprocessing.RawArray("i", 3)), lambda root: root.kept.__setitem__(1, 2), "Keeps.kept"),
        (Keeps(set()), lambda root: root.kept.add(1), "Keeps.kept"),
        (Keeps(bytearray(1)), lambda root: root.kept.append(1), "Keeps.kept"),
        (Keeps(SimpleNamespace(n=0)), lambda root: setattr(root.kept, "n", 1), "Keeps.kept"),
        (partial(with_default, [0]), lambda root: root.args[0].append(1), "partial(with_default) argument 1"),
        (partial(with_default, seen=[0]), lambda root: root.keywords["seen"].append(1), "partial(with_default) seen"),
        (Keeps(partial(print, {})), lambda root: root.kept.args[0].update(a=1), "partial(print) argument 1"),
        (with_default, lambda root: root.__defaults__[0].append(1), "with_default.seen"),
        (Keeps(Compose([])), lambda root: setattr(root.kept, "last", 1), ""),
        (Keeps(np.random.default_rng(1)), lambda root: root.kept.random(), ""),
    ],
)
def test_what_a_worker_changes_is_found_by_its_name(root: Any, change: Callable[[Any], object], name: str) -> None:
    before = _fingerprints((root,), [])
    assert _fingerprints((root,), []) == before
    change(root)
    now = _fingerprints((root,), [])
    assert [found for found in now if now[found] != before.get(found)] == [name] * bool(name)
