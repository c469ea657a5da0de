"""Seeds that are functions of their place in a run, and the states of all random generators as plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

# Put in place of numpy's own while a batch is made: numpy's state takes ten times as long to copy and to set.
_LENT = np.random.MT19937(0)


def seed_of(*place: int | str) -> int:
    """Return a seed, 0 to 2**32 - 1, that is a function of its place, e.g. of seed, epoch and batch."""
    digest = blake2b("/".join(map(str, place)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def seed_all(seed: int) -> None:
    """Seed python, numpy and torch's CPU generator; for the worker of a loader, which has nothing to restore.

    Args:
        seed: 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that transforms draw from
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block on generators seeded for it; afterwards those of python, numpy and torch's CPU are as before.

    Args:
        seed: 0 to 2**32 - 1.
    """
    cpu = torch.default_generator
    before, python, numpy = cpu.get_state(), random.getstate(), np.random.get_bit_generator()  # type: ignore[attr-defined]
    np.random.set_bit_generator(_LENT)  # type: ignore[attr-defined]
    try:
        seed_all(seed)
        yield
    finally:
        cpu.set_state(before)
        random.setstate(python)
        np.random.set_bit_generator(numpy)  # type: ignore[attr-defined]


def generator_states() -> dict[str, Any]:
    """Return the states of python's, numpy's, torch's and each CUDA device's generator as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - as above
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [int(position), int(has_gauss), float(cached)],
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Put all generators into the states that `generator_states` returned."""
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state((numpy["name"], numpy["keys"].numpy().astype(np.uint32), *numpy["rest"]))  # noqa: NPY002 - as above
    torch.set_rng_state(states["torch"].cpu())
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state.cpu(), device)
