"""Split each global batch into one shard per rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Examples per shard where the batch has enough: batch norm has no statistics of a single example, and matrix products
# of a single row use another kernel with other last digits.
MIN_SHARD_SIZE = 2


@dataclass(frozen=True)
class BatchSharding:
    """The examples of each batch that one rank gets.

    The global batch equals the batch of one process with `world_size` times the batch size. Rank r gets every
    `world_size`-th example from the r-th on. All ranks have the same number of batches, so that no collective
    blocks: where the last batch is too small, ranks without a shard get a padding batch, which counts nowhere.
    """

    num_examples: int  # of the epoch, over all ranks
    batch_size: int  # examples per batch and rank
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False  # drop a last global batch that is not full
    pad: bool = True  # give ranks without a shard a padding batch; otherwise they have fewer batches

    @property
    def num_batches(self) -> int:
        """Number of batches, equal on all ranks."""
        full, rest = divmod(self.num_examples, self.batch_size * self.world_size)
        return full if self.drop_last or not rest else full + 1

    def shard_positions(self, batch: int) -> range:
        """Return the positions of this rank's shard in the epoch's order; empty for a padding batch."""
        start = batch * self.batch_size * self.world_size
        end = min(start + self.batch_size * self.world_size, self.num_examples)
        num_shards = min(self.world_size, max(1, (end - start) // min(MIN_SHARD_SIZE, self.batch_size)))
        return range(start + self.rank, end, num_shards) if self.rank < num_shards else range(0)

    def shard(self, order: Sequence[int], batch: int) -> list[int]:
        """Return this rank's shard of a batch, or a padding batch."""
        if self.world_size == 1:
            return list(order[batch * self.batch_size : (batch + 1) * self.batch_size])
        positions = self.shard_positions(batch)
        own = order[positions.start : positions.stop : positions.step]  # far faster than one by one
        return list(own or order[: MIN_SHARD_SIZE if self.pad else 0])

    def is_padding(self, batch: int) -> bool:
        """Return whether this rank's batch is padding."""
        return not self.shard_positions(batch)

    def weight(self, batch: int) -> float:
        """Return the factor of this rank's gradient in the mean over ranks; 1 where all shards are equally large.

        The mean gradient over the examples of a batch is the mean over ranks of weight times mean over the shard.
        """
        start = batch * self.batch_size * self.world_size
        size = min(self.batch_size * self.world_size, self.num_examples - start)
        return len(self.shard_positions(batch)) * self.world_size / size
