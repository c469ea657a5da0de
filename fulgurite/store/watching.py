"""Load with retries, and reload what changed, in one thread for each watched loader."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.store.metrics import FAILURE, SUCCESS
from fulgurite.store.state import Entry, Stopped, StoreState
from fulgurite.store.transaction import Part, commit
from fulgurite.store.values.layers import Layer, is_same, leaves_of

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds after a failure, doubled while it stays the same

log = RankedLogger(__name__, every_rank=True)


def fetch(entry: Entry, stop: threading.Event) -> Layer:
    """Load values, with the retries of the loader.

    Raises:
        Exception: The last attempt failed with it.
        Stopped: The store closes.
    """
    loader, failures = entry.loader, 0
    while True:
        try:
            values: object = loader.load()
            if not isinstance(values, Mapping):
                kind = type(values).__name__
                raise UserError(f"{loader.name}: gives a {kind}, not a dictionary. Return one.")
            layer = Layer(loader.name, leaves_of(values, loader.name), loader.is_text)
        except Exception as error:  # noqa: PERF203 - tried again
            failures += 1
            if failures > loader.max_retry:
                raise
            log.warning("%s Attempt %d of %d follows.", describe(entry, error), failures + 1, loader.max_retry + 1)
            if stop.wait(loader.retry_delay):
                raise Stopped(loader.name) from error
        else:
            return layer


def describe(entry: Entry, error: Exception) -> str:
    """Return an error of a loader in one line that names the loader."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".rstrip(": ")
    line = " ".join(text.split())
    line = line if line.endswith(".") else f"{line}."
    return line if entry.loader.name in line else f"{entry.loader.name}: {line}"


def start_watcher(store: StoreState, entry: Entry) -> None:
    """Start the thread that watches a loader; its metrics begin with 0."""
    store.metrics.stats(store.name, entry.loader.name)
    name = f"config of {entry.loader.name}"
    entry.thread = threading.Thread(target=_watch, args=(store, entry), name=name, daemon=True)
    entry.thread.start()


def _watch(store: StoreState, entry: Entry) -> None:
    stop, pause, before = store.stopping, FIRST_PAUSE, ""
    while not stop.is_set():
        error = _wait_and_reload(store, entry)
        if error is None:
            pause, before = FIRST_PAUSE, ""
            continue
        if stop.is_set():
            return
        line = describe(entry, error)
        same = line == before
        is_crash = not isinstance(error, UserError)
        log.log(
            logging.DEBUG if same else logging.WARNING,
            "%s The store keeps the last good values.",
            line,
            exc_info=is_crash and error,
        )
        if entry.loader.stop_on_failure:
            store.stop(error)
            return
        pause, before = min(2 * pause, LONGEST_PAUSE) if same else FIRST_PAUSE, line
        stop.wait(pause)


def _wait_and_reload(store: StoreState, entry: Entry) -> Exception | None:
    """Wait for a change and load it; return the error if the wait or the load failed, else None."""
    outage = None
    try:
        if not entry.loader.wait(store.stopping) or store.stopping.is_set():
            return None
    except Exception as error:  # noqa: BLE001 - the source is down: a reload tries again, and counts
        outage = error
    start = time.perf_counter()
    try:
        is_reload = reload(store, entry, is_certain=outage is None and not entry.loader.is_polled)
    except Stopped:
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, watching continues
        store.metrics.observe(store.name, entry.loader.name, FAILURE, time.perf_counter() - start)
        return error
    if is_reload:
        store.metrics.observe(store.name, entry.loader.name, SUCCESS, time.perf_counter() - start)
    return outage


def reload(store: StoreState, entry: Entry, *, is_certain: bool) -> bool:
    """Load and publish one loader; return whether there was something to publish.

    Args:
        store: Its store.
        entry: The loader.
        is_certain: Whether the source has changed for certain. If not, values are published only where they differ
            from those of the last load.

    Raises:
        Exception: The loader failed, or its values were refused.
        Stopped: The store closes.
    """
    with store.family.deferring(), entry.lock:
        layer = fetch(entry, store.stopping)
        attempted, entry.attempted = entry.attempted, layer.leaves
        if not is_certain and attempted is not None and is_same(attempted, layer.leaves):
            return False
        commit(store.family, [Part(store, {entry: layer})])
    return True
