"""P10: measure reads of `fulgurite.Store` against a dictionary, OmegaConf and dynaconf, beside a thread that reloads.

All are read in the same round, on one and on four threads. dynaconf is left out where it is not installed.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fulgurite.store import FunctionLoader, Store
from scripts.bench.measure import Row, Threshold, measure_in_turns, ratios

Loop = Callable[[int], None]

KEY, NUM_KEYS = "optimizer.lr", 200
CHUNKS, SLOW_READS = 20, 20  # chunks of one round, of which the fastest counts; a slow read runs 1/20 as often
RELOAD_PAUSE = 0.005  # seconds between two reloads
MOST, FASTER = Threshold(3.0), Threshold(10.0, at_least=True)
READS = {  # name: the read, and the read of a dictionary that it is compared with
    "store.get(key)": ("store.get('optimizer.lr')", "a dict lookup"),
    "store.must_get(key)": ("store.must_get('optimizer.lr')", "a dict lookup"),
    "store.must_get(key, float)": ("store.must_get('optimizer.lr', float)", "a dict lookup"),
    "store.getter(key)()": ("getter()", "a dict lookup"),
    "binding.value.lr": ("binding.value.lr", "a dict lookup"),
    "store.get(key, 0.5)": ("store.get('optimizer.lr', 0.5)", "dict.get"),
    "store.get(missing, 0.5)": ("store.get('optimizer.none', 0.5)", "dict.get of a missing key"),
}
DICTIONARY = {
    "a dict lookup": "values['optimizer.lr']",
    "dict.get": "values.get('optimizer.lr', 0.5)",
    "dict.get of a missing key": "values.get('optimizer.none', 0.5)",
}


@dataclass(frozen=True)
class Optimizer:
    """The dataclass that is bound."""

    lr: float


def store_rows(repeats: int, folder: Path, reads: int = 20_000) -> list[Row]:
    """Measure reads on one and on four threads.

    Args:
        repeats: Number of measured rounds.
        folder: For the file that dynaconf reads.
        reads: Number of reads of a thread in a chunk.
    """
    values = {"optimizer": {"lr": 0.1}, **{f"key_{number}": number for number in range(NUM_KEYS)}}
    others = _other_libraries(values, folder)
    rows = []
    with Store(FunctionLoader(values)).load() as store, _reloading(store):
        names: dict[str, Any] = {
            "store": store,
            "values": {**store.snapshot().leaves},
            "getter": store.getter(KEY, 0.5),
            "binding": store.bind(Optimizer, "optimizer"),
            **{name: library for name, (library, _) in others.items()},
        }
        fast = {name: _loop(text, names) for name, text in DICTIONARY.items()}
        fast |= {name: _loop(text, names) for name, (text, _) in READS.items()}
        slow = {name: _loop(text, names) for name, (_, text) in others.items()}
        for threads in (1, 4):
            functions = {name: partial(_seconds, loop, reads, threads) for name, loop in fast.items()}
            functions |= {name: partial(_seconds, loop, reads // SLOW_READS, threads) for name, loop in slow.items()}
            rows += _rows(measure_in_turns(functions, repeats), [*others], threads)
    return rows


def _rows(found: dict[str, list[float]], others: list[str], threads: int) -> list[Row]:
    on = f"{threads} thread{'s' if threads > 1 else ''}"
    rows = []
    for name, (_, base) in READS.items():
        parts = {f"{each}, ns": [1e9 * seconds for seconds in found[each]] for each in (name, base)}
        rows.append(Row("P10", f"{name} over {base}, {on}", "x", ratios(found[name], found[base]), MOST, parts))
    for name in others:
        slowest = [max(found[each][at] for each in READS) for at in range(len(found[name]))]
        parts = {f"{name}, ns": [1e9 * seconds for seconds in found[name]]}
        what = f"{name} over the slowest read of the store, {on}"
        rows.append(Row("P10", what, "x", ratios(found[name], slowest), FASTER, parts))
    return rows


def _other_libraries(values: dict[str, Any], folder: Path) -> dict[str, tuple[Any, str]]:
    """Return the name of each other library, an object of it with the values, and its fastest read."""
    from omegaconf import OmegaConf

    found: dict[str, tuple[Any, str]] = {"omegaconf": (OmegaConf.create(values), "omegaconf.optimizer.lr")}
    if importlib.util.find_spec("dynaconf"):
        dynaconf: Any = importlib.import_module("dynaconf")
        file = folder / "settings.yaml"
        OmegaConf.save(OmegaConf.create({"optimizer": {"lr": 0.1}}), file)
        found["dynaconf"] = (dynaconf.Dynaconf(settings_files=[str(file)]), "dynaconf.OPTIMIZER.lr")
    return found


def _loop(text: str, names: dict[str, Any]) -> Loop:
    """Return a function that does a read so many times."""
    found: dict[str, Loop] = {}
    code = f"def loop(number, {', '.join(names)}):\n    for _ in range(number):\n        {text}\n"
    exec(code, found)  # noqa: S102 - a constant of this file; a function for the read would cost as much as the read
    return partial(found["loop"], **names)


def _seconds(loop: Loop, reads: int, threads: int) -> float:
    """Return the CPU seconds of one read, in the fastest of some chunks.

    CPU seconds of the reading threads: other programs and the reloading thread do not count.
    """
    return min(_chunk(loop, reads // CHUNKS, threads) for _ in range(CHUNKS))


def _chunk(loop: Loop, reads: int, threads: int) -> float:
    barrier = threading.Barrier(threads)
    seconds = []

    def work() -> None:
        barrier.wait()
        start = time.thread_time()
        loop(reads)
        seconds.append(time.thread_time() - start)

    others = [threading.Thread(target=work) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    return sum(seconds) / (reads * threads)


@contextmanager
def _reloading(store: Store) -> Iterator[None]:
    """Have another thread reload the store while the block lasts."""
    stop = threading.Event()

    def reload() -> None:
        while not stop.wait(RELOAD_PAUSE):
            store.load()

    thread = threading.Thread(target=reload, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
