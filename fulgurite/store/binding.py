"""A dataclass that holds the values of a store, replaced as a whole by each reload."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from fulgurite.core.errors import UserError
from fulgurite.store.snapshot import Snapshot
from fulgurite.store.state import StoreState
from fulgurite.store.values.convert import Problems, build

T = TypeVar("T")


class Binding(Generic[T]):
    """The values below a key as an instance of a dataclass; made by `Store.bind`.

    Example:
        >>> optimizer = store.bind(Optimizer, "optimizer")
        >>> optimizer.value.lr
        0.1
    """

    __slots__ = ("_store", "cls", "is_exact", "number", "prefix")

    def __init__(self, store: StoreState, cls: type[T], prefix: str, number: int, is_exact: bool) -> None:
        self._store, self.cls, self.prefix, self.number, self.is_exact = store, cls, prefix, number, is_exact

    @property
    def value(self) -> T:
        """The instance of now; its fields belong to one reload, so keep it while you read several.

        Raises:
            UserError: The store was not loaded yet.
        """
        try:
            value: T = self._store.current.bound[self.number]
        except IndexError:
            raise UserError(f"store={self._store.name}: is not loaded. Call load() first.") from None
        return value

    def build(self, snapshot: Snapshot, problems: Problems) -> Any:
        """Return a new instance for a snapshot; adds to `problems` what is wrong."""
        node = snapshot.find_group(self.prefix)
        if node is None:
            node = snapshot.leaves.get(self.prefix, {})
        return build(self.cls, node, self.prefix, problems, exact=self.is_exact)
