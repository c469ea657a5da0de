"""What the parts of a store share: its loaders, what is checked, and one transaction at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.store.metrics import ReloadMetrics
from fulgurite.store.snapshot import Change, Snapshot
from fulgurite.store.values.layers import Layer

if TYPE_CHECKING:
    from fulgurite.store.loaders.basic import Loader
    from fulgurite.store.values.convert import Problems

SET = "set"  # name of the layer above all loaders
Hook = Callable[[Change], object]
MAX_ROUNDS = 20  # of changes that hooks make: one that changes what calls it again has no end

log = RankedLogger(__name__, every_rank=True)


class Stopped(UserError):
    """The store is closed; its last values stay readable."""

    def __init__(self, name: str) -> None:
        super().__init__(f"store={name}: is closed. Make a new one.")


@dataclass(eq=False)
class Entry:
    """A loader in a store.

    Attributes:
        loader: The loader.
        hooks: Run after each load of it.
        lock: Held from a load to the end of its transaction, so that an older one is not published last.
        layer: What it gave at its last good load.
        attempted: What it gave at its last load, also where that was refused.
        thread: Its watcher.
    """

    loader: Loader
    hooks: list[Hook]
    lock: threading.Lock = field(default_factory=threading.Lock)
    layer: Layer | None = None
    attempted: Mapping[str, Any] | None = None
    thread: threading.Thread | None = None


class Family:
    """What a store and its groups share: one transaction at a time, metrics, and what hooks deferred."""

    def __init__(self) -> None:
        self.metrics = ReloadMetrics()
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._deferred: list[Callable[[], object]] = []
        self._ready: list[Callable[[], object]] = []
        self._local = threading.local()

    @property
    def is_in_hook(self) -> bool:
        """Whether this thread runs a hook of a transaction."""
        return self._thread == threading.get_ident()

    def defer(self, action: Callable[[], object], *, always: bool = False) -> None:
        """Call a function after the transaction that runs, unless it is refused; with `always` also then."""
        (self._ready if always else self._deferred).append(action)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold off other transactions."""
        with self._lock:
            self._thread = threading.get_ident()
            try:
                yield
                self._ready += self._deferred
            finally:
                self._deferred = []
                self._thread = None

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Do what the hooks of the transactions in this block deferred, at its end, when no lock is held."""
        try:
            yield
        finally:
            rounds = getattr(self._local, "rounds", 0)
            if rounds >= MAX_ROUNDS and self._ready:
                self._ready.clear()
                log.error(
                    "hooks set values %d times in a row, each in answer to the one before. Stopped there.", rounds
                )
            self._local.rounds = rounds + 1
            while self._ready:
                call_logged(self._ready.pop(0), "what a hook did to its store failed")
            self._local.rounds = rounds


def call_logged(action: Callable[[], object], what: str) -> None:
    """Call a function, and log what it raises."""
    try:
        action()
    except UserError as error:
        log.error("%s: %s", what, error)
    except Exception:
        log.exception("%s", what)


class StoreState:
    """The state of a store; `Store` adds what a program calls.

    Args:
        name: For messages and metrics.

    Attributes:
        is_group: Whether it is a group of another store.
        family: What it shares with its groups and with the store that it is a group of.
        current: The snapshot of the last load; each load replaces it by one assignment.
        entries: The loaders in their order.
        overrides: What `set` has set.
        kinds: Dotted key to the types in which the program reads it, the first read first.
        strict_keys: Dotted keys that must be there.
        bindings: `Binding.build` of each bound dataclass.
        key_hooks: Prefix and hook, in their order.
        stopping: Set once the store closes.
        failure: Why the store closed itself.
    """

    def __init__(self, name: str) -> None:
        self.name, self.is_group, self.family = name, False, Family()
        self.current = Snapshot({}, {}, 0)
        self.entries: list[Entry] = []
        self.overrides = Layer(SET, {})
        self.kinds: dict[str, tuple[Any, ...]] = {}
        self.strict_keys: tuple[str, ...] = ()
        self.bindings: tuple[Callable[[Snapshot, Problems], Any], ...] = ()
        self.key_hooks: list[tuple[str, Hook]] = []
        self.stopping = threading.Event()
        self.failure: Exception | None = None

    @property
    def metrics(self) -> ReloadMetrics:
        """The counted reloads of this store and its groups."""
        return self.family.metrics

    def stop(self, error: Exception) -> None:
        """Close the store because of an error."""
        raise NotImplementedError
