"""Runs every example and says which gave what it must, which did not, and which the backend does not have."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.distributed as dist

from fulgurite.doctor.cluster.rank_group import Claim, Example, Ranks
from fulgurite.doctor.conformance.collectives import COLLECTIVES
from fulgurite.doctor.conformance.groups import GROUPS
from fulgurite.doctor.conformance.point_to_point import POINT_TO_POINT

EXAMPLES: dict[str, Example] = {**COLLECTIVES, **POINT_TO_POINT, **GROUPS}
# elsewhere a rank may find that out while others already wait for it
GLOO_ONLY = {"recv from any", "monitored_barrier"}
RIGHT, WRONG, ABSENT = "right", "wrong", "absent"
# what backends say of an operation they do not have, before they have sent anything
_ABSENT = re.compile(
    r"unsupported|not (yet )?(supported|implemented)|does not support|only (available|implemented)|cannot use",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Outcome:
    """What came of one example on this rank.

    Attributes:
        name: Of the example.
        state: `right`, `wrong` or `absent` (the backend does not have it).
        detail: What came instead of what, or the backend's words.
    """

    name: str
    state: str
    detail: str = ""


def prove(name: str, ranks: Ranks) -> Outcome:
    """Run one example with all other ranks.

    Raises:
        RuntimeError: The backend has lost another rank.
    """
    if ranks.size == 1 and name in POINT_TO_POINT:
        return Outcome(name, ABSENT, "needs two ranks")
    if name in GLOO_ONLY and dist.get_backend(ranks.group) != "gloo":
        return Outcome(name, ABSENT, "gloo has it")
    try:
        wrong = [claim for claim in list(EXAMPLES[name](ranks)) if not _holds(claim)]
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if _ABSENT.search(str(error)):
            return Outcome(name, ABSENT, str(error).splitlines()[0])
        raise
    return Outcome(name, WRONG, "; ".join(map(_told, wrong))) if wrong else Outcome(name, RIGHT)


def _holds(claim: Claim) -> bool:
    got, wanted = claim
    if isinstance(wanted, torch.Tensor):
        if not isinstance(got, torch.Tensor) or got.dtype != wanted.dtype or got.shape != wanted.shape:
            return False
        # an average of float64 may be a product with 1/n: the last bit; of float32 this bears not one
        return (
            torch.allclose(got, wanted, rtol=1e-14, atol=0) if wanted.is_floating_point() else torch.equal(got, wanted)
        )
    return bool(got == wanted)


def _told(claim: Claim) -> str:
    got, wanted = (side.flatten()[:4].tolist() if isinstance(side, torch.Tensor) else side for side in claim)
    return f"{got} instead of {wanted}"
