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
}
PENDING |= {
    shape.name: "state in attributes"
    for shape in STATES
    if not (shape.name.startswith("data set:") and "generator" in shape.name)
}
PENDING |= {
    shape.name: "state where one looks last"
    for shape in HIDDEN
    if not any(
        name in shape.name for name in ("IterableDataset", "DistributedSampler", "batch_size=None", "a generator in")
    )
}
