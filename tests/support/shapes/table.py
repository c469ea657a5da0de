"""All shapes."""

from __future__ import annotations

from tests.support.shapes.loader_shapes import LOADERS
from tests.support.shapes.optimization_shapes import OPTIMIZATION

SHAPES = [*LOADERS, *OPTIMIZATION]

# Shapes that are not yet what they declare, and why. A mend removes its lines: the tests fail where a line is untrue.
PENDING = {
    "batch_sampler=BatchSampler(RandomSampler(ds), n, False)": "batches of one example",
    "a sampler with a torch generator of its own": "state of samplers",
    "a sampler with a NumPy generator of its own": "state of samplers",
    "a sampler with a random.Random of its own": "state of samplers",
    "a sampler that draws from the global generator": "state of samplers",
    "a batch sampler with set_epoch": "custom batch samplers",
    "a batch sampler with a generator of its own": "custom batch samplers",
    "batch_sampler=BatchSampler(SequentialSampler(ds), n, True)": "batches of one example",
    "batch_size=None": "loaders without batches",
    "a subclass of DataLoader": "loaders that are no plain DataLoader",
    "IterableDataset": "streams",
    "IterableDataset with state_dict": "streams",
    "CombinedLoader(min_size)": "several loaders",
    "CombinedLoader(max_size)": "several loaders",
    "CombinedLoader(max_size_cycle)": "several loaders",
    "CombinedLoader(sequential)": "Lightning's traceback",
    "accumulation by hand": "rows are cut by another counter",
    "two optimizers by hand (GAN)": "rows are cut by another counter",
    "two optimizers, one every second batch": "rows are cut by another counter",
}
