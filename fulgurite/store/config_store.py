"""The store: ordered loaders, typed reads of the newest values without a lock, hooks, groups, bindings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn, TypeVar

from fulgurite.core.errors import ConfigError, FulguriteError, UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.store.binding import Binding
from fulgurite.store.loaders.basic import Loader
from fulgurite.store.reading import Reading
from fulgurite.store.state import SET, Entry, Hook, Stopped
from fulgurite.store.transaction import Part, commit
from fulgurite.store.values.layers import Layer, leaves_of
from fulgurite.store.watching import describe, fetch, start_watcher

JOIN_SECONDS = 5.0  # for a watcher to end; one that a source holds up ends later, without effect

T = TypeVar("T")
log = RankedLogger(__name__, every_rank=True)


class Store(Reading):
    """Values of several sources that may change while the program runs.

    A read takes no lock: it looks into the snapshot that the last load published. A load is a transaction: whatever is
    wrong with it, the last good values stay. The type of a typed read is checked again before each later load is
    published, so a value that could be read stays readable.

    Args:
        loaders: In their order; for a key that several have, the last one counts, whichever was loaded last.
        name: For messages and metrics.
        strict: Dotted keys that must be there, see `strict`.

    Example:
        >>> store = Store(FileLoader("train.yaml"), EnvironmentLoader("APP_"), strict=["optimizer.lr"])
        >>> store.load_watch()
        >>> store.get("optimizer.lr", 0.1)
        0.01
    """

    def __init__(self, *loaders: Loader, name: str = "root", strict: Iterable[str] = ()) -> None:
        super().__init__(name)
        self.strict_keys = (*strict,)
        self._groups: dict[str, Store] = {}
        self._closers: list[Callable[[], object]] = []
        for loader in loaders:
            self.add(loader)

    def __enter__(self) -> Store:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a store has threads and cannot be pickled: pass store.snapshot().as_dict()")

    def __exit__(self, *_: object) -> None:
        self.close()

    # what it is made of

    def add(self, loader: Loader, *hooks: Hook) -> Store:
        """Add a loader behind the others, for the next `load`.

        Args:
            loader: Its name must be new.
            hooks: Called with the `Change` after each load of it, in their order, also where nothing changed.

        Raises:
            UserError: The name is not new.
        """
        if any(entry.loader.name == loader.name for entry in self.entries):
            raise UserError(f"{loader.name}: two loaders have this name. Pass name= to one of them.")
        self.entries.append(Entry(loader, [*hooks]))
        return self

    def group(self, name: str) -> Store:
        """Return the group of a name, made at its first use: a store with its own keys, loaders, hooks and strict keys.

        `load`, `watch` and `close` of this store include it.
        """
        made = Store(name=f"{self.name}/{name}")
        made.is_group, made.family = True, self.family
        return self._groups.setdefault(name, made)

    def strict(self, *keys: str) -> None:
        """Require keys: `load` fails without them, and a reload is refused. `key:` without a value counts as missing.

        Raises:
            ConfigError: The store was loaded before and lacks one.
        """
        before, self.strict_keys = self.strict_keys, tuple(dict.fromkeys((*self.strict_keys, *keys)))
        try:
            self._check_again()
        except BaseException:
            self.strict_keys = before
            raise

    def bind(self, cls: type[T], prefix: str = "", *, exact: bool = False) -> Binding[T]:
        """Bind a dataclass to a group of keys; fields without a default are strict keys.

        Args:
            cls: The dataclass, best a frozen one. A field's key is its name, or `metadata={"key": name}`.
            prefix: Dotted key of the group; empty: all keys.
            exact: Whether a key that is not a field is refused, which finds typos.

        Raises:
            ConfigError: The store was loaded before, and its values do not fit.
        """
        binding = Binding(self, cls, prefix, len(self.bindings), exact)
        before, self.bindings = self.bindings, (*self.bindings, binding.build)
        try:
            self._check_again()
        except BaseException:
            self.bindings = before
            raise
        return binding

    def on_change(self, prefix: str, hook: Hook) -> Hook:
        """Call a hook once for each load that adds, changes or removes a key at or below a prefix; "" is any key.

        The hook runs before the values are published: `change.new` has them, reads of the store still show the last
        good ones. An exception refuses the load. What it sets in the store is set after the load. It must not wait
        for another thread that changes the store.
        """
        self.key_hooks.append((prefix, hook))
        return hook

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call a function when the store closes, the first added first."""
        self._closers.append(closer)

    # loading

    def load(self) -> Store:
        """Load all loaders in their order, those of groups too, and publish their values as one transaction.

        Raises:
            ConfigError: All that is wrong: loaders that failed, missing keys, wrong types.
            Exception: A hook or the code of a loader failed.
        """
        self._require_open()
        if self.family.is_in_hook:
            raise RuntimeError("a hook cannot load its own store: call load() after the reload")
        stores = [*self._family_stores()]
        if not any(store.entries for store in stores):
            raise UserError(f"store={self.name}: has no loader. Add one first.")
        try:
            self._load_all(stores)
        except Exception as error:
            for store in stores:
                if store.failure is error:
                    store.stop(error)
            raise
        return self

    def _load_all(self, stores: Sequence[Store]) -> None:
        with self.family.deferring(), ExitStack() as locks:
            parts, failures = [], []
            for store in stores:
                for entry in store.entries:
                    locks.enter_context(entry.lock)
                layers, failed = store._fetch_all()
                parts.append(Part(store, layers))
                failures += failed
            if failures:
                raise ConfigError(failures)
            commit(self.family, parts)

    def _fetch_all(self) -> tuple[dict[Entry, Layer], list[str]]:
        """Return what the loaders give, and a line for each that failed and is required."""
        layers: dict[Entry, Layer] = {}
        failures: list[str] = []
        for entry in self.entries:
            try:
                layers[entry] = fetch(entry, self.stopping)
                entry.attempted = layers[entry].leaves
            except Exception as error:  # noqa: BLE001, PERF203 - each is tried: all findings come together
                failures += self._judge_failure(entry, error)
        return layers, failures

    def _judge_failure(self, entry: Entry, error: Exception) -> list[str]:
        """Return the lines of an error that fails the load, none if the loader may be left out."""
        is_crash = not isinstance(error, (UserError, OSError))
        if self.is_closed or (is_crash and entry.loader.required):
            raise error
        if entry.loader.stop_on_failure:
            self.failure = error
            raise error
        if entry.loader.required:
            return str(error).splitlines() if isinstance(error, UserError) else [describe(entry, error)]
        line = describe(entry, error)
        log.warning("%s It is left out until it can be loaded.", line, exc_info=error if is_crash else None)
        return []

    def watch(self) -> Store:
        """Reload each loader whose source changes, in a thread of its own, until the store closes.

        Raises:
            UserError: The store is not loaded, or is closed.
        """
        self._require_open()
        for store in self._family_stores():
            if store.entries:
                store._require_loaded()
            for entry in store.entries:
                if entry.loader.is_watched and entry.thread is None:
                    start_watcher(store, entry)
        return self

    def load_watch(self) -> Store:
        """Load, then watch; nothing is watched if the load fails."""
        return self.load().watch()

    def set(self, key: str, value: Any) -> None:
        """Set a value above all loaders, as a transaction with the same checks and hooks as a load.

        Raises:
            UserError: The store is not loaded or is closed, or the value is refused.
        """
        self._require_open()
        if self.family.is_in_hook:
            self.family.defer(lambda: self.set(key, value))
            return
        self._require_loaded()
        values = leaves_of({key: value}, SET)
        with self.family.deferring():
            commit(self.family, [Part(self, {}, values)])

    # closing

    def close(self) -> None:
        """End all watchers, close the loaders and call the closers; the last values stay readable. Twice is once.

        Raises:
            FulguriteError: Loaders or closers failed; all were closed nevertheless.
        """
        if self.family.is_in_hook:
            self.family.defer(self.close, always=True)
            return
        stores = [*self._family_stores()]
        with self.family.transaction():  # none publishes afterwards
            if self.stopping.is_set():
                return
            for store in stores:
                store.stopping.set()
        entries = [entry for store in stores for entry in store.entries]
        errors = [*_errors_of((entry.loader.name, entry.loader.close) for entry in entries)]
        for entry in entries:
            if entry.thread is not None and entry.thread is not threading.current_thread():
                entry.thread.join(JOIN_SECONDS)
        errors += _errors_of(("a closer", closer) for store in stores for closer in store._closers)
        if errors:
            raise FulguriteError(f"store={self.name}: closing failed: {'; '.join(errors)}")

    def stop(self, error: Exception) -> None:
        """Close the store because of an error, which `failure` keeps."""
        self.failure = error
        log.error("store=%s: is closed, as stop_on_failure says. Its last values stay readable. %s", self.name, error)
        try:
            self.close()
        except FulguriteError as failure:
            log.error("%s", failure)

    @property
    def is_closed(self) -> bool:
        """Whether the store was closed."""
        return self.stopping.is_set()

    def _family_stores(self) -> Iterator[Store]:
        """Yield this store and its groups that are open, with theirs."""
        yield self
        for group in self._groups.copy().values():
            if not group.is_closed:
                yield from group._family_stores()

    def _check_again(self) -> None:
        """Check the values against what is required now."""
        if self.family.is_in_hook and (self.is_loaded or self.entries):
            raise RuntimeError("a hook cannot bind or require keys of its store: do it before load()")
        if self.is_loaded:
            with self.family.deferring():
                commit(self.family, [Part(self, {})])

    def _require_open(self) -> None:
        if self.is_closed:
            raise Stopped(self.name)


def _errors_of(functions: Iterable[tuple[str, Callable[[], object]]]) -> Iterator[str]:
    for name, function in functions:
        try:
            function()
        except Exception as error:  # noqa: PERF203 - all are closed, and the caller gets all errors
            log.debug("closing %s failed", name, exc_info=True)
            yield f"{name}: {type(error).__name__}: {error}"
