"""All shapes."""

from __future__ import annotations

from tests.support.shapes.attribute_shapes import STATES
from tests.support.shapes.held import HELD
from tests.support.shapes.hidden_shapes import HIDDEN, MOMENTS
from tests.support.shapes.hook_shapes import HOOK_SHAPES
from tests.support.shapes.inherited import INHERITED
from tests.support.shapes.inner import INNER
from tests.support.shapes.keeping_shapes import KEEPING
from tests.support.shapes.late import LATE
from tests.support.shapes.loader_shapes import LOADERS
from tests.support.shapes.looks import LOOKS
from tests.support.shapes.object_shapes import OBJECT_SHAPES
from tests.support.shapes.optimization_shapes import OPTIMIZATION
from tests.support.shapes.python_state import PYTHON_STATE
from tests.support.shapes.reached_shapes import REACHED
from tests.support.shapes.repositories import REPOSITORIES
from tests.support.shapes.saving import SAVING
from tests.support.shapes.schedules import SCHEDULERS
from tests.support.shapes.shared_draws import SHARED_DRAWS
from tests.support.shapes.trainer_shapes import CALLBACKS, TRAINER, VALIDATION
from tests.support.shapes.training import TRAINING

SHAPES = [
    *LOADERS,
    *LOOKS,
    *OPTIMIZATION,
    *TRAINING,
    *SCHEDULERS,
    *CALLBACKS,
    *TRAINER,
    *VALIDATION,
    *STATES,
    *SAVING,
    *REACHED,
    *HIDDEN,
    *HELD,
    *OBJECT_SHAPES,
    *HOOK_SHAPES,
    *MOMENTS,
    *KEEPING,
    *INNER,
    *PYTHON_STATE,
    *LATE,
    *INHERITED,
    *SHARED_DRAWS,
    *REPOSITORIES,
]

# What `make test` runs: one shape for each way in which a run is restored or refused; `make test-full` runs all.
FAST = {
    "IterableDataset with state_dict",  # a stream
    "two optimizers by hand (GAN)",  # saved and logged within an epoch of manual optimization
    "on_train_epoch_start that multiplies a factor",  # a hook that must not run twice
    "drop_last with too few examples",  # refused
    "OneCycleLR of all steps",  # loaders that are set up before they are restored
    "data set: a NumPy generator, in workers",  # shuffled batches, and the state of each worker
    "on_train_start that copies a target network",  # what hooks of the start change is put back
    "NumPy values, a deque, a Path and a datetime",  # a checkpoint of more than tensors
}

# Shapes that are not yet what they declare, and why. A mend removes its lines: the tests fail where a line is untrue.
PENDING: dict[str, str] = {}
