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
PENDING: dict[str, str] = {}
