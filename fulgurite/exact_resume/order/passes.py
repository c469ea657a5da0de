"""A pass over a loader, which begins with its first batch and knows its position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fulgurite.exact_resume.order.drawn import Drawn

Position = tuple[int, int, int]  # epoch, pass, batches yielded in it


@dataclass
class Progress:
    """How far a pass is.

    Attributes:
        position: After the batch that was yielded last.
        previous: Before it.
        at_start: What the samplers of the loader kept when the pass began.
        drawn: What a user's sampler yielded in the pass.
    """

    position: Position = (0, 0, 0)
    previous: Position = (0, 0, 0)
    at_start: dict[str, Any] = field(default_factory=dict)
    drawn: Drawn | None = None

    def move(self, position: Position) -> None:
        """Take a position as the present one."""
        self.previous, self.position = self.position, position

    def state_dict(self, ahead: int) -> dict[str, Any]:
        """Return the position of the run. `ahead` counts the batches that were fetched and not trained on yet."""
        epoch, number, batches = self.previous if ahead else self.position
        state: dict[str, Any] = {"epoch": epoch, "pass": number, "batches": batches}
        if not batches:
            return state
        drawn = {} if self.drawn is None else {"drawn": self.drawn.state()}
        return {**state, "ahead": ahead, "at_start": self.at_start, **drawn}


class Pass(Iterator[Any]):
    """An iterator over a loader that does nothing before its first batch is requested.

    Args:
        begin: Returns the batches of the pass; gets the iterator, by which the trainer's is known.
    """

    def __init__(self, begin: Callable[[Pass], Iterator[Any]]) -> None:
        self._begin = begin
        self._batches: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = self._begin(self)
        return next(self._batches)
