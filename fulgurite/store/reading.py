"""Typed reads of the newest snapshot. The usual read is one dictionary lookup and a comparison of types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from fulgurite.core.errors import ConfigError, UserError, suggest_path
from fulgurite.store.snapshot import Snapshot
from fulgurite.store.state import StoreState
from fulgurite.store.transaction import problem_line, sentence
from fulgurite.store.values.convert import ABSENT, Problems, convert

T = TypeVar("T")
REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "<required>"})()


class Reading(StoreState):
    """The reads of a `Store`; none takes a lock."""

    @property
    def is_loaded(self) -> bool:
        """Whether a load was published."""
        return self.current.version > 0

    def snapshot(self) -> Snapshot:
        """Return all values of now, for several reads that belong together."""
        self._require_loaded()
        return self.current

    def __contains__(self, key: str) -> bool:
        return key in self.current

    def origin(self, key: str) -> str:
        """Return the name of the loader that gave a value.

        Raises:
            UserError: The key is missing, or is a group.
        """
        if key not in self.current.origins:
            raise self._missing(key)
        return self.current.origins[key]

    @overload
    def get(self, key: str) -> Any: ...
    @overload
    def get(self, key: str, default: T) -> T: ...
    @overload
    def get(self, key: str, default: T, kind: type[T]) -> T: ...
    @overload
    def get(self, key: str, default: None = None, *, kind: type[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: Any = None, kind: Any = None) -> Any: ...
    def get(self, key: str, default: Any = None, kind: Any = None) -> Any:
        """Return a value, or the default where the key is missing.

        Args:
            key: Dotted key; a group of keys is a read-only dictionary, a list is a tuple.
            default: Its type is that of the read, unless it is None.
            kind: Type of the read, see `fulgurite.store.values.convert.convert`.

        Raises:
            UserError: The value is not of this type, or the store is not loaded.
        """
        try:
            if kind is None:
                if default is None:
                    return self.current.reads[key]
                kind = default.__class__
            value = self.current.typed[key]
        except KeyError:
            return self._read(key, default, kind)
        if value is ABSENT:  # was found missing before
            return default
        return value if value.__class__ is kind else self._read(key, default, kind)

    @overload
    def must_get(self, key: str) -> Any: ...
    @overload
    def must_get(self, key: str, kind: type[T]) -> T: ...
    @overload
    def must_get(self, key: str, kind: Any = None) -> Any: ...
    def must_get(self, key: str, kind: Any = None) -> Any:
        """Return a value that must be there.

        Args:
            key: Dotted key.
            kind: Type of the read, see `get`.

        Raises:
            UserError: The key is missing, the value is not of this type, or the store is not loaded.
        """
        try:
            if kind is None:
                return self.current.reads[key]
            return self.current.converted[kind][key]
        except KeyError:
            return self._read(key, REQUIRED, kind)

    @overload
    def getter(self, key: str) -> Callable[[], Any]: ...
    @overload
    def getter(self, key: str, default: T) -> Callable[[], T]: ...
    @overload
    def getter(self, key: str, *, kind: type[T]) -> Callable[[], T]: ...
    @overload
    def getter(self, key: str, default: Any = ..., kind: Any = None) -> Callable[[], Any]: ...
    def getter(self, key: str, default: Any = REQUIRED, kind: Any = None) -> Callable[[], Any]:
        """Return a function that returns the newest value at each call, as `get`, or `must_get` without a default.

        The types are checked from the next load on, so make getters before `load`.
        """
        if kind is None and default is not REQUIRED and default is not None:
            kind = type(default)
        if kind is not None:
            self._declare(key, kind)

        own = object()

        def read() -> Any:
            try:
                return self.current.own_reads[own]
            except KeyError:
                snapshot, value = self.current, self._read(key, default, kind)
            if snapshot is self.current and not isinstance(value, (list, dict)):
                snapshot.own_reads[own] = value
            return value

        return read

    def _read(self, key: str, default: Any, kind: Any) -> Any:
        """Read a key for the first time in a type, or one that is missing."""
        self._require_loaded()
        snapshot = self.current
        if key not in snapshot:
            if default is REQUIRED:
                raise self._missing(key)
            if kind is not None:
                self._declare(key, kind)
                snapshot.typed.setdefault(key, ABSENT)  # the next read finds it at once
            return default
        if kind is None:
            return snapshot[key]
        if key in (known := snapshot.converted.get(kind, {})):
            return known[key]
        problems: Problems = []
        value = convert(snapshot[key], kind, key, problems)
        if problems:
            raise ConfigError([problem_line(self, snapshot, *problem) for problem in problems])
        self._declare(key, kind)
        return snapshot.keep(key, kind, value, is_first=self.kinds[key][0] == kind)

    def _declare(self, key: str, kind: Any) -> None:
        known = self.kinds.get(key, ())
        if kind not in known:
            self.kinds[key] = (*known, kind)

    def _missing(self, key: str) -> UserError:
        problem = sentence(f"is missing{suggest_path(key, self.current.leaves)}")
        return UserError(f"{key}: {problem} Set it, or read it with a default.")

    def _require_loaded(self) -> None:
        if not self.is_loaded:
            raise UserError(f"store={self.name}: is not loaded. Call load() first.")
