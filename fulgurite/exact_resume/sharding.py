"""How several processes share the batches of an epoch: the batches of one process, each cut into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Examples that no rank gets fewer of as long as a batch has them: of a single one batch norm cannot take statistics,
# and matrix products take another way, with other last digits.
LEAST = 2


@dataclass(frozen=True)
class BatchSharding:
    """Which examples of each batch are one rank's.

    A batch of all ranks together is what one process would see in a batch `ranks` times as large. Rank r takes every
    `ranks`-th example from the r-th on. All ranks have equally many batches, so that none waits for another for ever:
    where the last batch is too small for all of them, those without a part of it get a filler, which counts nowhere.

    Attributes:
        examples: In the epoch, over all ranks.
        batch_size: Examples a batch of one rank.
        rank: Whose part.
        ranks: How many share.
        drop_last: Whether a last batch that is not full, over all ranks, is left out.
        fill: Whether there are fillers; without, ranks have as many batches as they have parts.
    """

    examples: int
    batch_size: int
    rank: int = 0
    ranks: int = 1
    drop_last: bool = False
    fill: bool = True

    @property
    def batches(self) -> int:
        """How many there are, the same for every rank."""
        whole, rest = divmod(self.examples, self.batch_size * self.ranks)
        return whole if self.drop_last or not rest else whole + 1

    def places(self, batch: int) -> range:
        """Return the places in the order of the epoch that this rank's part of a batch has; empty for a filler."""
        start = batch * self.batch_size * self.ranks
        end = min(start + self.batch_size * self.ranks, self.examples)
        holders = min(self.ranks, max(1, (end - start) // min(LEAST, self.batch_size)))
        return range(start + self.rank, end, holders) if self.rank < holders else range(0)

    def part(self, order: Sequence[int], batch: int) -> list[int]:
        """Return this rank's examples of a batch, or a filler.

        Args:
            order: Of all examples of the epoch.
            batch: Its number in the epoch, from 0.
        """
        return [order[place] for place in self.places(batch)] or list(order[: LEAST if self.fill else 0])

    def is_padding(self, batch: int) -> bool:
        """Tell whether this rank has no example of a batch of its own."""
        return not self.places(batch)

    def weight(self, batch: int) -> float:
        """Return what a rank's gradient of a batch is worth in the mean over ranks, 1 where all parts are equal.

        The mean over the batch of the gradients of its examples is the mean over ranks of weight times mean over part.
        """
        start = batch * self.batch_size * self.ranks
        together = min(self.batch_size * self.ranks, self.examples - start)
        return len(self.places(batch)) * self.ranks / together
