"""Read and set the states of generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def generator_state(value: Any) -> Any:
    """Return the state of a generator, as its library has it."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    return value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state(legacy=False)


def generator_kind(value: Any) -> str:
    """Return a name for the class of a generator, e.g. `numpy PCG64`."""
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
    if isinstance(current, GENERATORS) and generator_kind(current) == kind:
        generator: Any = current
    elif family == "torch":
        generator = torch.Generator(device="cpu" if detail == "cpu" else device)
    elif family == "numpy":
        generator = np.random.Generator(getattr(np.random, detail)())
    else:
        generator = random.Random() if family == "Random" else np.random.RandomState()
    if isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        generator.setstate((state[0], tuple(state[1]), state[2]))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _numpy_state(state)
    else:
        generator.set_state(_numpy_state(state))
    return generator


def _numpy_state(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _numpy_state(part) for name, part in state.items()}
    if not isinstance(state, list):
        return state
    return np.frombuffer(state[2].cpu().numpy().tobytes(), state[1]).copy()
