"""Derive seeds, run functions on scoped RNGs, and save and restore RNG states."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import torch

from fulgurite.exact_resume.values.generator_states import generator_state, state_bytes

# Swapped for NumPy's own generator while a batch is made: copying and setting NumPy's state takes ten times as long.
_SCOPED_NUMPY = np.random.MT19937(0)

# the global generators; NumPy's stays the same object when `_SCOPED_NUMPY` is swapped in
GLOBAL: dict[str, Any] = {
    "python": random.random.__self__,  # type: ignore[attr-defined]
    "numpy": np.random.rand.__self__,  # type: ignore[attr-defined]
    "torch": torch.default_generator,
}
RNGS = frozenset(GLOBAL)
PROBE_BATCHES = 16  # enough to catch an augmentation that changes one image in many

T = TypeVar("T")
U = TypeVar("U")


def derive_seed(*parts: int | str) -> int:
    """Return a seed, 0 to 2**32 - 1, that is a function of e.g. run seed, epoch and batch."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest(), "little")


def seed_all(seed: int) -> None:
    """Seed the Python, NumPy and torch CPU RNGs of a DataLoader worker; seed: 0 to 2**32 - 1."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that transforms draw from
    torch.default_generator.manual_seed(seed)


class ScopedRng:
    """Runs a function with the Python, NumPy and torch CPU RNGs seeded, then restores their states.

    The first batches probe which RNGs the data draws from. The others are left alone afterwards: scoping Python's RNG
    costs more than making a batch of an in-memory data set. If the data draws from one of them later, it draws from
    the run's own stream, which checkpoints save and restore.

    Args:
        scoped: Names of the RNGs to scope always, without a probe.
    """

    def __init__(self, scoped: Iterable[str] = ()) -> None:
        self.drawn: set[str] = set(scoped)  # names of the RNGs that a batch drew from
        self.probe_batches = 0 if self.drawn else PROBE_BATCHES  # batches left to probe

    def is_idle(self) -> bool:
        """Return whether the data draws from none of the RNGs, so that `run` would leave them alone."""
        return not self.probe_batches and not self.drawn

    def run(self, seed: int, make: Callable[[T], U], argument: T) -> U:
        """Return `make(argument)`, run with seeded RNGs."""
        if self.is_idle():
            return make(argument)
        is_probe = bool(self.probe_batches)
        scoped = RNGS if is_probe else self.drawn
        cpu = torch.default_generator
        torch_state = cpu.get_state()
        python_state = random.getstate() if "python" in scoped else None
        cpu.manual_seed(seed)
        if python_state:
            random.seed(seed)
        own = _swap_numpy(seed) if "numpy" in scoped else None
        fresh = rng_positions() if is_probe else {}
        try:
            return make(argument)
        finally:
            if is_probe:
                now = rng_positions()
                self.drawn |= {name for name in RNGS if now[name] != fresh[name]}
                self.probe_batches -= 1
            cpu.set_state(torch_state)
            if python_state:
                random.setstate(python_state)
            if own is not None:
                np.random.set_bit_generator(own)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """Return the result of the probe; a resumed run needs the same."""
        return {"looks": self.probe_batches, "drawn": sorted(self.drawn)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.probe_batches, self.drawn = state["looks"], set(state["drawn"])


def _swap_numpy(seed: int) -> Any:
    """Replace NumPy's generator by the seeded scoped one, and return NumPy's own."""
    own = np.random.get_bit_generator()  # type: ignore[attr-defined]
    np.random.set_bit_generator(_SCOPED_NUMPY)  # type: ignore[attr-defined]
    np.random.seed(seed)  # noqa: NPY002 - the generator that transforms draw from
    return own


def rng_positions() -> dict[str, bytes]:
    """Return bytes for each of the Python, NumPy and torch CPU RNGs that differ after code drew from it."""
    return {name: state_bytes(generator_state(each)) for name, each in GLOBAL.items()}


def rng_states() -> dict[str, Any]:
    """Return the states of the Python, NumPy, torch and CUDA RNGs as tensors and plain values."""
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


def restore_rng_states(states: dict[str, Any]) -> None:
    """Restore the states that `rng_states` returned."""
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state((numpy["name"], numpy["keys"].numpy().astype(np.uint32), *numpy["rest"]))  # noqa: NPY002 - as above
    torch.set_rng_state(states["torch"].cpu())
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state.cpu(), device)
