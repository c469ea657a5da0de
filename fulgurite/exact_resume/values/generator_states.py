"""Read and set the states of generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
SOURCES = (*GENERATORS, np.random.BitGenerator, np.random.SeedSequence)  # also what generators are made of
SEEDS = "seeds"  # key of a seed sequence in the state of a NumPy generator: `spawn` counts there


def generator_state(value: Any) -> Any:
    """Return the state of a generator, as its library has it."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.SeedSequence):
        return value.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    bits = value.bit_generator if isinstance(value, np.random.Generator) else value
    seeds = bits.seed_seq
    return {**bits.state, **({SEEDS: seeds.state} if isinstance(seeds, np.random.SeedSequence) else {})}


def generator_kind(value: Any) -> str:
    """Return a name for the class of a generator, e.g. `numpy PCG64`."""
    if isinstance(value, np.random.BitGenerator):
        return f"bits {type(value).__name__}"
    if isinstance(value, torch.Generator):
        return f"torch {value.device.type}"
    bits = type(value.bit_generator).__name__ if isinstance(value, np.random.Generator) else ""
    return f"numpy {bits}" if bits else type(value).__name__


def state_bytes(state: Any) -> bytes:
    """Return bytes that differ after a state changed."""
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, np.ndarray):
        return state.tobytes()
    if isinstance(state, dict):
        return b"|".join(state_bytes(part) for part in state.values())
    return repr(state).encode()


def plain_state(state: Any) -> Any:
    """Return a state in atoms, tensors, lists and dicts; an array as the list of its type and its bytes."""
    if isinstance(state, dict):
        return {name: plain_state(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return [plain_state(part) for part in state]
    if isinstance(state, np.ndarray):
        return ["array", state.dtype.str, torch.from_numpy(state.view(np.uint8).copy())]
    return state.item() if isinstance(state, np.generic) else state


def restore_generator(content: list[Any], current: Any, device: torch.device) -> Any:
    """Return a generator with a saved kind and state: `current`, where it is of this kind."""
    kind, state = content
    family, _, detail = kind.partition(" ")
    if isinstance(current, SOURCES) and generator_kind(current) == kind and _spawn_as_often(current, state):
        generator: Any = current
    elif family == "torch":
        generator = torch.Generator(device="cpu" if detail == "cpu" else device)
    elif family in ("numpy", "bits"):
        bits = getattr(np.random, detail)(_seeds(state[SEEDS]) if SEEDS in state else None)
        generator = np.random.Generator(bits) if family == "numpy" else bits
    elif family == "SeedSequence":
        return _seeds(state)
    else:
        generator = random.Random() if family == "Random" else np.random.RandomState()
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        generator.setstate((state[0], tuple(state[1]), state[2]))
    elif isinstance(generator, (np.random.Generator, np.random.BitGenerator)):
        bits = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
        bits.state = _numpy_state({name: part for name, part in state.items() if name != SEEDS})
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_numpy_state(state))
    return generator


def _spawn_as_often(current: Any, state: Any) -> bool:
    """Give a generator the saved count of children, which can only rise; return whether it has it now."""
    bits = current.bit_generator if isinstance(current, np.random.Generator) else current
    seeds = bits.seed_seq if isinstance(bits, np.random.BitGenerator) else bits
    saved = state.get(SEEDS, state) if isinstance(state, dict) else {}
    if not isinstance(seeds, np.random.SeedSequence) or "n_children_spawned" not in saved:
        return True
    now = plain_state(seeds.state)
    missing = saved["n_children_spawned"] - now["n_children_spawned"]
    if missing > 0 and {**now, "n_children_spawned": saved["n_children_spawned"]} == saved:
        seeds.spawn(missing)
    return bool(missing == 0 or plain_state(seeds.state) == saved)


def _seeds(state: Any) -> np.random.SeedSequence:
    state = _numpy_state(state)
    return np.random.SeedSequence(**{**state, "spawn_key": tuple(state["spawn_key"])})


def _numpy_state(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _numpy_state(part) for name, part in state.items()}
    if not isinstance(state, list) or state[:1] != ["array"]:
        return state
    return np.frombuffer(state[2].cpu().numpy().tobytes(), state[1]).copy()
