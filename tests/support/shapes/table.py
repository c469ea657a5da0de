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

# Shapes that are not yet what they declare, and why. A mend removes its lines: the tests fail where a line is untrue.
PENDING: dict[str, str] = {
    "batch_sampler=BatchSampler(RandomSampler(ds), n, False)": "batches of one example",
    "a sampler with a torch generator of its own": "state of samplers",
    "a sampler with a NumPy generator of its own": "state of samplers",
    "a sampler with a random.Random of its own": "state of samplers",
    "a sampler that draws from the global generator": "state of samplers",
    "a batch sampler with set_epoch": "custom batch samplers",
    "a batch sampler with a generator of its own": "custom batch samplers",
    "batch_sampler=BatchSampler(SequentialSampler(ds), n, True)": "batches of one example",
    "batch_size=None of batches made before": "loaders without batches",
    "a subclass of DataLoader": "loaders that are no plain DataLoader",
    "an optimizer of your own with a counter in an attribute": "state in attributes",
    "on_train_batch_start that returns -1": "epochs that the model ends",
    "on_train_epoch_start that sets a factor from current_epoch": "epoch hooks amid an epoch",
    "on_train_epoch_start that multiplies a factor": "epoch hooks amid an epoch",
    "StochasticWeightAveraging": "callbacks that change training",
    "ModelPruning": "callbacks that change training",
    "BackboneFinetuning": "callbacks that change training",
    "GradientAccumulationScheduler": "epoch hooks amid an epoch",
    "LearningRateFinder": "tuners run again",
    "BatchSizeFinder": "tuners run again",
    "overfit_batches": "named in the log only",
    "random validation examples in workers": "validation in workers",
    "random validation examples in persistent workers": "validation in workers",
    "curriculum: dataset.level = current_epoch": "writes to data set and sampler",
    "curriculum: dataset.level += 0.5": "writes to data set and sampler",
    "curriculum: sampler.weights": "writes to data set and sampler",
}
PENDING |= {shape.name: "state in attributes" for shape in STATES if not shape.name.startswith("curriculum")}
PENDING |= {shape.name: "state where one looks last" for shape in HIDDEN if "IterableDataset" not in shape.name}
