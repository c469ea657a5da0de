"""Optimizer states keep the types in which they were saved."""

from __future__ import annotations

from collections import deque

import torch

from fulgurite.compat.optimizer_states import load_optimizer_state
from tests.support.shapes.optimizers import Typed


def test_a_state_is_loaded_in_its_own_types() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    saved, loaded = (Typed([weight]) for _ in range(2))
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    state = {
        "sum": third,
        "mask": torch.tensor([True, False, True]),
        "half": torch.ones(3, dtype=torch.float16),
        "past": deque([1, 2], maxlen=2),
        "name": "sgd",
        "nested": {"pair": (third, [torch.tensor(7)])},
    }
    saved.state[weight] = dict(state)
    load_optimizer_state(loaded, saved.state_dict())
    found = loaded.state[weight]
    assert {name: found[name].dtype for name in ("sum", "mask", "half")} == {
        "sum": torch.float64,
        "mask": torch.bool,
        "half": torch.float16,
    }
    assert torch.equal(found["sum"], third)
    assert (found["past"], found["past"].maxlen, found["name"]) == (deque([1, 2]), 2, "sgd")
    assert torch.equal(found["nested"]["pair"][0], third)
    assert found["nested"]["pair"][1][0].dtype == torch.int64
    assert found["sum"] is not third
