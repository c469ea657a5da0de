"""Seeds that are functions of their place in a run, and the states of all random generators as plain values."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import torch

# Put in place of numpy's own while a batch is made: numpy's state takes ten times as long to copy and to set.
_LENT = np.random.MT19937(0)

LOOKS = 16  # batches; enough for a change that is made to one image in many

T = TypeVar("T")
U = TypeVar("U")


def derive_seed(*place: int | str) -> int:
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


class ScopedRng:
    """Lends python's, numpy's and torch's CPU generator, seeded, to the making of a batch; then all is as before.

    In the first batches of a run all three are lent and looked at. One that no batch drew from is left alone from
    then on: to lend python's costs more than to make a batch of a data set in memory. Should the data begin to draw
    from it later, it draws from the run's own stream, which is saved and restored.

    Attributes:
        looks: Batches in which all three are still to be lent.
        drawn: Names of those that were drawn from.
    """

    def __init__(self) -> None:
        self.looks = LOOKS
        self.drawn: set[str] = set()

    def run(self, seed: int, make: Callable[[T], U], what: T) -> U:
        """Return `make(what)`, drawn from generators seeded for it.

        Args:
            seed: 0 to 2**32 - 1.
            make: Makes the batch.
            what: Its one argument.
        """
        if self.looks:
            return self._look(seed, make, what)
        if not self.drawn:
            return make(what)
        cpu, python, numpy = torch.default_generator, "python" in self.drawn, "numpy" in self.drawn
        before = cpu.get_state()
        words = random.getstate() if python else None
        cpu.manual_seed(seed)
        if words:
            random.seed(seed)
        own = _lend_numpy(seed) if numpy else None
        try:
            return make(what)
        finally:
            cpu.set_state(before)
            if words:
                random.setstate(words)
            if own is not None:
                np.random.set_bit_generator(own)  # type: ignore[attr-defined]

    def _look(self, seed: int, make: Callable[[T], U], what: T) -> U:
        """Do the same with all three, and note which of them moved."""
        cpu = torch.default_generator
        before, words, own = cpu.get_state(), random.getstate(), _lend_numpy(seed)
        cpu.manual_seed(seed)
        random.seed(seed)
        fresh, python, numpy = cpu.get_state(), random.getstate(), _LENT.state["state"]
        try:
            return make(what)
        finally:
            moved = {
                "torch": not torch.equal(cpu.get_state(), fresh),
                "python": random.getstate() != python,
                "numpy": _LENT.state["state"]["pos"] != numpy["pos"]
                or (_LENT.state["state"]["key"] != numpy["key"]).any(),
            }
            self.drawn |= {name for name, drew in moved.items() if drew}
            self.looks -= 1
            cpu.set_state(before)
            random.setstate(words)
            np.random.set_bit_generator(own)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """Return what was found out, so that a resumed run decides alike."""
        return {"looks": self.looks, "drawn": sorted(self.drawn)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.looks, self.drawn = state["looks"], set(state["drawn"])


def _lend_numpy(seed: int) -> Any:
    """Put the generator that is lent in place of numpy's own, seeded, and return numpy's own."""
    own = np.random.get_bit_generator()  # type: ignore[attr-defined]
    np.random.set_bit_generator(_LENT)  # type: ignore[attr-defined]
    np.random.seed(seed)  # noqa: NPY002 - the generator that transforms draw from
    return own


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
