"""Run every conformance example and classify its result."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
import torch.distributed as dist

from fulgurite.doctor.cluster.rank_group import Comparison, Example, RankGroup
from fulgurite.doctor.conformance.collectives import COLLECTIVES
from fulgurite.doctor.conformance.groups import GROUPS
from fulgurite.doctor.conformance.point_to_point import POINT_TO_POINT

EXAMPLES: dict[str, Example] = {**COLLECTIVES, **POINT_TO_POINT, **GROUPS}
# on other backends one rank may raise while its peers block
GLOO_ONLY = {"recv from any", "monitored_barrier"}
RIGHT, WRONG, UNSUPPORTED = "right", "wrong", "unsupported"
# messages of backends that lack an operation, raised before they send anything
_UNSUPPORTED = re.compile(
    r"unsupported|not (yet )?(supported|implemented)|does not support|only (available|implemented)|cannot use",
    re.IGNORECASE,
)


class Outcome(NamedTuple):
    """The result of one example on this rank.

    Attributes:
        state: `right`, `wrong` or `unsupported` by the backend.
        detail: Actual and expected values, or the backend's message.
    """

    state: str
    detail: str = ""


def run_example(name: str, ranks: RankGroup) -> Outcome:
    """Run one example on all ranks.

    Raises:
        RuntimeError: The backend has lost another rank.
    """
    if ranks.size == 1 and name in POINT_TO_POINT:
        return Outcome(UNSUPPORTED, "needs two ranks")
    if name in GLOO_ONLY and dist.get_backend(ranks.group) != "gloo":
        return Outcome(UNSUPPORTED, "only gloo supports it")
    try:
        wrong = [comparison for comparison in list(EXAMPLES[name](ranks)) if not _is_equal(comparison)]
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if _UNSUPPORTED.search(str(error)):
            return Outcome(UNSUPPORTED, str(error).splitlines()[0])
        raise
    return Outcome(WRONG, "; ".join(map(_describe, wrong))) if wrong else Outcome(RIGHT)


def _is_equal(comparison: Comparison) -> bool:
    actual, expected = comparison
    if not isinstance(expected, torch.Tensor):
        return bool(actual == expected)
    if not isinstance(actual, torch.Tensor) or actual.dtype != expected.dtype or actual.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(actual, expected)
    # a backend may multiply a float64 average by 1/n: one bit of float64, no bit of float32
    return torch.allclose(actual, expected, rtol=1e-14, atol=0)


def _describe(comparison: Comparison) -> str:
    actual, expected = (side.flatten()[:4].tolist() if isinstance(side, torch.Tensor) else side for side in comparison)
    return f"{actual} instead of {expected}"
