"""All shapes."""

from __future__ import annotations

from tests.support.shapes.attribute_shapes import STATES
from tests.support.shapes.hidden_shapes import HIDDEN, MOMENTS
from tests.support.shapes.loader_shapes import LOADERS
from tests.support.shapes.optimization_shapes import OPTIMIZATION
from tests.support.shapes.saving import SAVING
from tests.support.shapes.schedules import SCHEDULERS
from tests.support.shapes.trainer_shapes import CALLBACKS, TRAINER, VALIDATION
from tests.support.shapes.training import TRAINING

SHAPES = [
    *LOADERS,
    *OPTIMIZATION,
    *TRAINING,
    *SCHEDULERS,
    *CALLBACKS,
    *TRAINER,
    *VALIDATION,
    *STATES,
    *SAVING,
    *HIDDEN,
    *MOMENTS,
]

# One or two of each kind, which `make test` runs; `make test-full` runs all.
FAST = {
    "DataLoader(ds, shuffle=True)",
    "batch_sampler=BatchSampler(RandomSampler(ds), n, False)",
    "a batch sampler with set_epoch",
    "IterableDataset with state_dict",
    "accumulation by hand",
    "two optimizers by hand (GAN)",
    "on_train_epoch_start that multiplies a factor",
    "ReduceLROnPlateau by epoch",
    "BackboneFinetuning",
    "drop_last with too few examples",
    "model: a list of losses",
    "data set: a NumPy generator, in workers",
    "NumPy values, a deque, a Path and a datetime",
}

# Shapes that are not yet what they declare, and why. A mend removes its lines: the tests fail where a line is untrue.
PENDING: dict[str, str] = {}
