"""Fingerprint values of attributes, and convert plain ones to what `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from hashlib import blake2b
from io import IOBase
from operator import length_hint
from os import urandom
from pathlib import Path, PurePath
from types import GeneratorType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities import AttributeDict

ATOMS = (type(None), bool, int, float, complex, str, bytes)
MAX_DEPTH, MAX_ITEMS, MAX_HASHED_BYTES = 8, 10_000, 8 * 2**20
NUM_SAMPLED = 4096  # elements of a larger tensor or array that its fingerprint reads
FACTORIES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple)}
CONTAINERS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, torch.Size, Counter, dict, OrderedDict, AttributeDict)
}
# objects of these are infrastructure: they hold no state of a training, or their owner saves it
FOREIGN = (
    "lightning",
    "fulgurite",
    "logging",
    "threading",
    "torch.optim",
    "torch.utils",
    "torch.cuda",
    *("_io", "h5py", "zipfile", "lmdb", "sqlite3", "PIL", "tqdm"),
)


class NotPlainError(Exception):
    """A value that cannot be saved."""


# fingerprints


def fingerprint(value: Any, known: set[int]) -> Any:
    """Return something that differs after a value changed; objects in `known`, by id, count as constant."""
    if type(value) in ATOMS:
        return type(value).__name__, repr(value)
    total = blake2b(digest_size=16)
    for part in _parts(value, known, set(), MAX_DEPTH):
        total.update(part + b"|")
    return total.digest()


def _parts(value: Any, known: set[int], seen: set[int], depth: int) -> Iterator[bytes]:
    kind = type(value)
    yield kind.__qualname__.encode()
    if kind in ATOMS or is_iterator(value):
        yield repr(value).encode() if kind in ATOMS else _position_of(value)
        return
    if id(value) in known or id(value) in seen or depth == 0 or is_constant(value):
        return
    if isinstance(value, torch.Tensor):
        yield from _tensor_parts(value)
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        sampled = value if value.nbytes <= MAX_HASHED_BYTES else value.flat[:: value.size // NUM_SAMPLED]
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(sampled).tobytes() if value.dtype != object else repr(sampled).encode()
    elif (state := _generator_state(value)) is not None:
        yield from _parts(state, known, seen, depth - 1)
    elif isinstance(value, Mapping):
        yield str(len(value)).encode()
        for key in list(value)[-MAX_ITEMS:]:
            yield repr(key).encode()
            yield from _parts(value[key], known, seen, depth - 1)
    elif isinstance(value, (list, tuple, deque)):
        yield str(len(value)).encode()
        for part in list(value)[-MAX_ITEMS:]:
            yield from _parts(part, known, seen, depth - 1)
    elif isinstance(value, (set, frozenset)):
        yield repr(sorted(map(repr, value))).encode()
    elif hasattr(value, "__dict__"):
        yield from _parts(vars(value), known, seen, depth - 1)


def _tensor_parts(value: torch.Tensor) -> Iterator[bytes]:
    yield f"{value.dtype}{tuple(value.shape)}".encode()
    if value.layout is not torch.strided or value.is_meta:
        return
    flat = value.detach().reshape(-1) if value.nbytes <= MAX_HASHED_BYTES else _sample(value.detach())
    yield np.ascontiguousarray(flat.cpu().contiguous().view(torch.uint8).numpy()).tobytes() if flat.numel() else b""


def _sample(value: torch.Tensor) -> torch.Tensor:
    positions = torch.linspace(0, value.numel() - 1, NUM_SAMPLED, dtype=torch.float64).long()
    return value.reshape(-1)[positions.to(value.device)]


def is_constant(value: Any) -> bool:
    """Return whether a value is code or infrastructure, whose changes do not matter."""
    return _is_constant_kind(cast("Hashable", type(value)))


@cache
def _is_constant_kind(kind: Any) -> bool:
    if issubclass(kind, (type, ModuleType)) or kind.__name__ in {"function", "method", "partial"}:
        return True
    is_callable = any("__call__" in vars(base) for base in kind.__mro__)
    if is_callable and not issubclass(kind, torch.nn.Module) and not kind.__dictoffset__:
        return True
    return f"{kind.__module__}.".startswith(tuple(f"{prefix}." for prefix in FOREIGN))


def is_iterator(value: Any) -> bool:
    """Return whether a value has a position that cannot be saved; an open file has one too, and needs none."""
    return _is_iterator_kind(cast("Hashable", type(value)))


@cache
def _is_iterator_kind(kind: Any) -> bool:
    return issubclass(kind, Iterator) and not issubclass(kind, IOBase)


def _position_of(iterator: Any) -> bytes:
    """Return what differs after an iterator moved; something new each time where nothing can be read."""
    if isinstance(iterator, GeneratorType):
        return repr(iterator.gi_frame and iterator.gi_frame.f_lasti).encode()
    position = getattr(iterator, "_num_yielded", None)  # of a DataLoader
    hint = length_hint(iterator, -1) if position is None else position
    return repr(hint).encode() if hint >= 0 else urandom(8)


def _generator_state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if type(value) is random.Random:
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    return None


# conversion: atoms as they are, all others as [type, content]


def to_plain(value: Any) -> Any:
    """Return a value as atoms, tensors and lists of these.

    Raises:
        NotPlainError: It is or holds an object.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is defaultdict and value.default_factory in (None, *FACTORIES.values()):
        factory = getattr(value.default_factory, "__name__", None)
        return ["defaultdict", [factory, to_plain(dict(value))]]
    if kind is deque:
        return ["deque", [value.maxlen, [to_plain(part) for part in value]]]
    if CONTAINERS.get(kind.__name__) is not kind:
        return _leaf_to_plain(value)
    items = value.items() if isinstance(value, dict) else value
    return [kind.__name__, [to_plain(part) for part in items]]


def _leaf_to_plain(value: Any) -> list[Any]:
    kind = type(value)
    if kind is torch.Tensor and value.layout is torch.strided and not value.is_meta:
        return ["tensor", [value.detach().clone(), value.device.type, value.is_leaf and value.requires_grad]]
    if kind is np.ndarray and value.dtype.kind in "biufcmMSU":
        content = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        return ["array", [value.dtype.str, list(value.shape), content]]
    if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
        return ["scalar", [value.dtype.str, value.item()]]
    if (state := _generator_state(value)) is not None:
        return ["generator", [_generator_kind(value), to_plain(state)]]
    if isinstance(value, PurePath):
        return ["path", str(value)]
    raise NotPlainError(kind.__qualname__)


def from_plain(plain: Any, device: torch.device) -> Any:
    """Return the value that `to_plain` converted; tensors of an accelerator on `device`."""
    if not isinstance(plain, list):
        return plain
    kind, content = plain
    if kind == "defaultdict":
        return defaultdict(FACTORIES.get(content[0]), from_plain(content[1], device))
    if kind == "deque":
        return deque([from_plain(part, device) for part in content[1]], content[0])
    if kind in CONTAINERS:
        parts = [from_plain(part, device) for part in content]
        return CONTAINERS[kind](dict(parts) if issubclass(CONTAINERS[kind], dict) else parts)
    return _leaf_from_plain(kind, content, device)


def _leaf_from_plain(kind: str, content: Any, device: torch.device) -> Any:
    if kind == "tensor":
        tensor: torch.Tensor = content[0].to("cpu" if content[1] == "cpu" else device)
        return tensor.requires_grad_(content[2])
    if kind == "array":
        return np.frombuffer(content[2].cpu().numpy().tobytes(), dtype=content[0]).reshape(content[1]).copy()
    if kind == "scalar":
        return np.dtype(content[0]).type(content[1])
    if kind == "generator":
        return _make_generator(content[0], from_plain(content[1], torch.device("cpu")), device)
    return Path(content)


def size_of(plain: Any) -> int:
    """Return about how many bytes a converted value takes."""
    if isinstance(plain, torch.Tensor):
        return plain.nbytes
    if isinstance(plain, list):
        return sum(map(size_of, plain)) + 8
    return len(plain) if isinstance(plain, (str, bytes)) else 8


def set_in_place(current: Any, restored: Any) -> bool:
    """Give a container or a generator the content of a restored one, since others may refer to it too."""
    if type(current) is not type(restored):
        return False
    if isinstance(current, (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)):
        _set_generator_state(current, _generator_state(restored))
    elif isinstance(current, (dict, set)):
        current.clear()
        current.update(restored)
    elif isinstance(current, (list, deque)):
        if isinstance(current, deque) and current.maxlen != restored.maxlen:
            return False
        current.clear()
        current.extend(restored)
    else:
        return False
    return True


def _generator_kind(value: Any) -> str:
    if isinstance(value, torch.Generator):
        return f"torch {value.device.type}"
    return (
        f"numpy {type(value.bit_generator).__name__}"
        if isinstance(value, np.random.Generator)
        else type(value).__name__
    )


def _make_generator(kind: str, state: Any, device: torch.device) -> Any:
    family, _, detail = kind.partition(" ")
    if family == "torch":
        generator: Any = torch.Generator(device="cpu" if detail == "cpu" else device)
    elif family == "numpy":
        generator = np.random.Generator(getattr(np.random, detail)())
    else:
        generator = random.Random() if family == "Random" else np.random.RandomState()
    _set_generator_state(generator, state)
    return generator


def _set_generator_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, torch.Generator):
        generator.set_state(state.cpu())
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
