"""What workers report is read whole at any moment."""

from __future__ import annotations

import sys
from threading import Thread

from fulgurite.exact_resume.workers.worker_copies import SLOT_BYTES, WorkerWatch


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
