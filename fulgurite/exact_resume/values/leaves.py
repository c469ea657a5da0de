"""Save and restore single values: tensors, arrays, generators, buffers, dates."""

from __future__ import annotations

import ctypes
import itertools
from array import array
from ast import literal_eval
from collections import deque
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

import numpy as np
import torch

from fulgurite.exact_resume.values.generator_states import (
    SOURCES,
    generator_kind,
    generator_state,
    plain_state,
    restore_generator,
)
from fulgurite.exact_resume.values.kinds import class_name, find_class
from fulgurite.exact_resume.values.subclasses import SCALARS, is_subclass, subclass_from_plain, subclass_to_plain

TENSORS = (torch.Tensor, torch.nn.Parameter)
ARRAYS = (np.ndarray, np.memmap)
BUFFERS = (array, bytearray)
STREAMS = (BytesIO, StringIO)
_DTYPES = {str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}
# kind of a leaf to its class, and the function that restores an object from its text
TEXTS: dict[str, tuple[type, Any]] = {
    "path": (PurePath, Path),
    "dtype": (torch.dtype, lambda text: _DTYPES[text]),
    "device": (torch.device, torch.device),
    "datetime": (datetime, datetime.fromisoformat),
    "date": (date, date.fromisoformat),
    "time": (time, time.fromisoformat),
    "timedelta": (timedelta, lambda text: timedelta(microseconds=int(text))),
    "decimal": (Decimal, Decimal),
    "fraction": (Fraction, lambda text: Fraction(*map(int, text.split("/")))),  # parsing 1e999999999 takes forever
    "uuid": (UUID, UUID),
    "count": (itertools.count, lambda text: itertools.count(*(_counted(text) or ()))),
}


@cache
def is_leaf(kind: Any) -> bool:
    """Return whether objects of a class are saved as a whole."""
    if kind in (*TENSORS, *BUFFERS, *SOURCES, *ARRAYS):
        return True
    ctypes_data = ctypes.c_int.__mro__[-2]
    wholes = (np.generic, np.random.BitGenerator, *STREAMS, ctypes_data, Enum)
    return issubclass(kind, wholes) or is_subclass(kind) or _text_name(kind) is not None


@cache
def is_shared(kind: Any) -> bool:
    """Return whether two holders of such a leaf see each other's changes."""
    is_text = _text_name(kind) is not None and kind is not itertools.count
    return not (issubclass(kind, (np.generic, *SCALARS, Enum)) or is_text)


@cache
def _text_name(kind: Any) -> str | None:
    for name, (base, _) in TEXTS.items():
        if kind is base or (name == "path" and issubclass(kind, PurePath)):
            return name
    return None


MAX_STEPS = 10_000_000  # largest distance to advance an itertools.count; beyond it, a new one replaces it

# conversion to atoms, tensors, and lists of these: [kind, content]


def leaf_to_plain(value: Any) -> list[Any] | None:  # noqa: PLR0911 - one return a kind
    """Return a leaf as what `torch.load(weights_only=True)` reads, or None."""
    kind: Any = type(value)
    if is_subclass(kind):
        return subclass_to_plain(value, leaf_to_plain)
    if isinstance(value, torch.Tensor):
        return _tensor_to_plain(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufcmMSU":
            return None
        content = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        return ["array", [value.dtype.str, list(value.shape), content]]
    if isinstance(value, np.generic):
        known = value.dtype.kind in "biufcmMSU"
        return ["scalar", [value.dtype.str, np.asarray(value).tobytes()]] if known else None
    if isinstance(value, SOURCES):
        return ["generator", [generator_kind(value), plain_state(generator_state(value))]]
    if issubclass(kind, Enum):
        # several members of a Flag have no name in common
        return ["enum", [class_name(kind), *([None, value.value] if isinstance(value, Flag) else [value.name])]]
    if isinstance(value, BUFFERS):
        return ["buffer", [getattr(value, "typecode", ""), bytes(value)]]
    if isinstance(value, STREAMS):
        return ["stream", [kind.__name__, *stream_state(value)]] if kind in STREAMS else None
    if kind is itertools.count and _counted(repr(value)) is None:
        return None
    if (name := _text_name(kind)) is not None:
        return [name, _text_of(value)]
    return ["ctypes", [kind.__name__, bytes(value)]]


def size_of(plain: list[Any]) -> int:
    """Return about how many bytes a converted leaf takes."""
    if plain[0] == "subclass":
        return 8 + sum(size_of(part) if isinstance(part, list) else len(str(part)) for part in plain[1])
    parts = plain[1] if isinstance(plain[1], list) else plain[1:]
    return 8 + sum(
        part.nbytes if isinstance(part, torch.Tensor) else len(part if isinstance(part, (str, bytes)) else str(part))
        for part in parts
    )


def leaf_size(value: Any) -> int:
    """Return about how many bytes a leaf takes, before it is converted."""
    if isinstance(value, STREAMS):
        return len(stream_state(value)[0] or "")
    is_sparse = isinstance(value, torch.Tensor) and value.layout is not torch.strided
    return value.nbytes if isinstance(value, (torch.Tensor, np.ndarray)) and not is_sparse else 64


def stream_state(value: BytesIO | StringIO) -> tuple[Any, int]:
    """Return the content and the position of a stream in memory; the content of a closed stream is None."""
    return (None, 0) if value.closed else (value.getvalue(), value.tell())


def leaf_from_plain(plain: list[Any], current: Any, device: torch.device) -> Any:  # noqa: PLR0911 - one a kind
    """Return the object that `leaf_to_plain` converted: `current` with the saved content, or a new one.

    Args:
        plain: The converted leaf.
        current: The object that gets the content, since others may refer to it too, or None.
        device: The device of tensors of an accelerator.
    """
    kind, content = plain
    if kind == "tensor":
        return _restore_tensor(content, current, device)
    if kind == "sparse":
        indices, values = (part.to("cpu" if content[4] == "cpu" else device) for part in content[:2])
        return torch.sparse_coo_tensor(indices, values, content[2], is_coalesced=content[3], check_invariants=True)
    if kind == "array":
        restored = np.frombuffer(content[2].cpu().numpy().tobytes(), dtype=content[0]).reshape(content[1])
        return _fill_array(current, restored)
    if kind == "scalar":
        return np.frombuffer(content[1], dtype=content[0])[0]
    if kind == "generator":
        return restore_generator(content, current, device)
    if kind == "enum":
        return _restore_enum(content, current)
    if kind == "subclass":
        return subclass_from_plain(content, current, device, leaf_from_plain)
    if kind == "buffer":
        return _fill_buffer(content, current)
    if kind == "stream":
        return _fill_stream(content, current)
    if kind == "count" and type(current) is itertools.count and _advance(current, content):
        return current
    if kind == "ctypes":
        return _fill_ctypes(content, current)
    return TEXTS[kind][1](content)


def _restore_enum(content: list[Any], current: Any) -> Any:
    name, *member = content
    found: Any = find_class(name)
    if found is None or not issubclass(found, Enum):
        return current
    return found(member[1]) if len(member) > 1 else found[member[0]]


def _text_of(value: Any) -> str:
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value // timedelta(microseconds=1)) if isinstance(value, timedelta) else str(value)


def _tensor_to_plain(value: torch.Tensor) -> list[Any] | None:
    if value.layout is torch.sparse_coo:
        parts = [value._indices().detach().clone(), value._values().detach().clone()]
        return ["sparse", [*parts, list(value.shape), value.is_coalesced(), value.device.type]]
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        return None
    requires_grad = value.is_leaf and value.requires_grad
    grad = value.grad.detach().clone() if requires_grad and value.grad is not None else None
    content = value.detach().clone(memory_format=torch.contiguous_format)
    return ["tensor", [content, value.device.type, requires_grad, isinstance(value, torch.nn.Parameter), grad]]


def _restore_tensor(content: list[Any], current: Any, device: torch.device) -> torch.Tensor:
    saved, device_type, requires_grad, is_parameter, grad = content
    target = device if device_type != "cpu" else torch.device("cpu")
    if _is_writable(current, saved, device_type, is_parameter=is_parameter):
        with torch.no_grad():
            current.copy_(saved)
        restored: torch.Tensor = current
    else:
        # a loaded checkpoint may be read again, and tensors of one file may share memory
        restored = saved.to(target, copy=True)
        restored = torch.nn.Parameter(restored, requires_grad) if is_parameter else restored
    if restored.is_leaf and restored.requires_grad != requires_grad:
        restored.requires_grad_(requires_grad)
    if restored.is_leaf and requires_grad:
        restored.grad = None if grad is None else grad.to(target, copy=True)
    return restored


def _is_writable(current: Any, saved: torch.Tensor, device_type: str, *, is_parameter: bool) -> bool:
    """Return whether a tensor can take the saved values; one that was expanded has elements that share memory."""
    if not isinstance(current, torch.nn.Parameter if is_parameter else torch.Tensor) or current.is_inference():
        return False
    alike = (current.shape, current.dtype, current.device.type) == (saved.shape, saved.dtype, device_type)
    return alike and current.layout is torch.strided and 0 not in current.stride()


def _fill_array(current: Any, restored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    filled: np.ndarray[Any, Any] = restored.copy()
    alike = isinstance(current, np.ndarray) and (current.shape, current.dtype) == (restored.shape, restored.dtype)
    if alike and current.flags.writeable and 0 not in current.strides:
        filled = current
        filled[...] = restored
    return filled


def _fill_stream(content: list[Any], current: Any) -> Any:
    name, saved, position = content
    is_there = type(current).__name__ == name and not current.closed
    if saved is None:
        if is_there:
            current.close()
        return current
    stream: Any = current if is_there else BytesIO() if isinstance(saved, bytes) else StringIO()
    stream.seek(0)
    stream.truncate()
    stream.write(saved)
    stream.seek(position)
    return stream


def _counted(text: str) -> tuple[Any, ...] | None:
    """Return the numbers in a text such as `count(3, 2)`, the start and the step; None if they are not numbers."""
    try:
        found = literal_eval(text.removeprefix("count"))
    except (ValueError, SyntaxError):
        return None
    return found if isinstance(found, tuple) else (found,)


def _advance(current: Any, text: str) -> bool:
    """Move an `itertools.count` to a saved position, since others may hold it too; return whether it is there."""
    (start, step), (saved, saved_step) = ((*(_counted(each) or (0,)), 1)[:2] for each in (repr(current), text))
    steps = (saved - start) / step if step else 0
    if step != saved_step or steps != int(steps) or not 0 <= steps <= MAX_STEPS:
        return False
    deque(itertools.islice(current, int(steps)), maxlen=0)
    return repr(current) == text


def _fill_ctypes(content: list[Any], current: Any) -> Any:
    if type(current).__name__ == content[0] and ctypes.sizeof(current) == len(content[1]):
        ctypes.memmove(ctypes.addressof(current), content[1], len(content[1]))
    return current


def _fill_buffer(content: list[Any], current: Any) -> Any:
    code, saved = content
    restored: Any = array(code, saved) if code else bytearray(saved)
    if type(current) is not type(restored) or getattr(current, "typecode", "") != code:
        return restored
    current[:] = restored
    return current
