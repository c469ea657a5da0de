"""Convert the content of a checkpoint to what `torch.load(weights_only=True)` reads, and back.

A converted value is plain in the file: text for a Path, a tensor for an array. The entry `TYPES` of the checkpoint
lists key and type of each, so that a resume restores an equal value of the same type.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import AttributeDict
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import LRScheduler

from fulgurite.core.redact import without_secrets

TYPES = "fulgurite_types"  # entry of a checkpoint: [key path, type, details] of each converted value
HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
HYPERPARAMETERS_TYPES = ("hparams_type", "datamodule_hparams_type")  # DictConfig, which the file does not hold
MAX_DEPTH = 100
MAX_TEXT_BYTES = 1 << 30  # of an array of texts
_ATOMS = (type(None), bool, int, float, complex, str, bytes, bytearray)
_LOADABLE = {*_ATOMS, torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device, torch.layout, Counter}
_FACTORIES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple)}
_LEFT_OUT = object()

_RESTORE: dict[str, Callable[[Any, Any], Any]] = {
    "numpy scalar": lambda value, dtype: _dtype(dtype, value).type(value),
    "numpy array": lambda value, details: _to_array(value, *details),
    "path": lambda value, _: Path(value),
    "datetime": lambda value, _: datetime.fromisoformat(value),
    "date": lambda value, _: date.fromisoformat(value),
    "time": lambda value, _: time.fromisoformat(value),
    "timedelta": lambda value, _: timedelta(*value),
    "deque": deque,
    "AttributeDict": lambda value, _: AttributeDict(value),
    "set": lambda value, _: set(value),
    "frozenset": lambda value, _: frozenset(value),
    "range": lambda value, _: range(*value),
    "defaultdict": lambda value, factory: defaultdict(_FACTORIES.get(factory), value),
}


@dataclass
class PlainContent:
    """A checkpoint without objects."""

    content: dict[str, Any]
    rejected: dict[str, str] = field(default_factory=dict)  # key and type of each value that could not be loaded again


def to_plain(checkpoint: Mapping[str, Any]) -> PlainContent:
    """Return a checkpoint with plain values only; `checkpoint` itself stays as it is.

    Hyperparameters that are objects are left out, see `plain_hyperparameters`.
    """
    exact = checkpoint.get("callbacks", {}).get("ExactResume", {})
    converter = _Converter(restores_attributes=exact.get("attributes", False))
    content: dict[str, Any] = {}
    for key, value in checkpoint.items():
        if key in HYPERPARAMETERS:
            content[key] = plain_hyperparameters(value)[0]
        elif key not in HYPERPARAMETERS_TYPES and (plain := converter.convert(value, (key,))) is not _LEFT_OUT:
            content[key] = plain
    if converter.types:
        content[TYPES] = converter.types
    return PlainContent(content, converter.rejected)


def from_plain(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a loaded checkpoint with the values that `to_plain` converted in their own types."""
    restored: Any = checkpoint
    for path, kind, details in checkpoint.pop(TYPES, ()):
        restored = _replaced(restored, path, partial(_restored, kind, details))
    return dict(restored)


def plain_hyperparameters(parameters: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the hyperparameters that are plain, and the type of each other one by name.

    A DictConfig becomes a dict, and a partial of plain arguments what Hydra's `instantiate` makes it from.
    """
    if OmegaConf.is_config(parameters):
        parameters = _of_config(parameters)
    plain: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, value in parameters.items():
        converter = _Converter(describe_partials=True)
        converted = converter.convert(value, (name,))
        if converter.rejected:
            left_out[str(name)] = type_name(value)
        else:
            plain[name] = without_secrets(converted, str(name))
    return plain, left_out


def type_name(value: Any) -> str:
    """Return the name of a value's class."""
    return type(value).__qualname__


class _Converter:
    def __init__(self, *, describe_partials: bool = False, restores_attributes: bool = False) -> None:
        self._restores_attributes = restores_attributes  # also a scheduler inside another one
        self.types: list[list[Any]] = []
        self.rejected: dict[str, str] = {}
        self._describe_partials = describe_partials

    def convert(self, value: Any, path: tuple[Any, ...]) -> Any:
        """Return a plain value, `value` itself where it is plain, or `_LEFT_OUT`."""
        kind = type(value)
        if kind in _LOADABLE or len(path) > MAX_DEPTH:
            return value if kind in _LOADABLE else self._reject(value, path)
        if kind in (dict, OrderedDict):
            return self._convert_mapping(value, path)
        if kind in (list, tuple, set):
            return self._convert_items(value, path)
        factory = value.default_factory if kind is defaultdict else None
        if kind in (AttributeDict, defaultdict) and factory in (None, *_FACTORIES.values()):
            return self._note(path, kind.__name__, type_name_of(factory), dict(value))
        if kind in (deque, frozenset):
            return self._note(path, kind.__name__, getattr(value, "maxlen", None), list(value))
        if self._describe_partials and isinstance(value, partial):
            return self.convert(_describe(value), path)
        if OmegaConf.is_config(value):
            return self.convert(_of_config(value), path)
        return self._convert_leaf(value, path)

    def _convert_leaf(self, value: Any, path: tuple[Any, ...]) -> Any:
        kind = type(value)
        if kind is range:
            return self._note(path, "range", None, [value.start, value.stop, value.step])
        if isinstance(value, np.generic) and value.dtype.kind in "biufcSU" and type(value.item()) in _ATOMS:
            return self._note(path, "numpy scalar", value.dtype.str, value.item())
        if kind is np.ndarray and value.dtype.kind in "biufcSUmM":
            return self._note(path, "numpy array", [value.dtype.str, list(value.shape)], _of_array(value))
        if isinstance(value, PurePath):
            return self._note(path, "path", None, str(value))
        if kind in (datetime, date, time):
            return self._note(path, kind.__name__, None, value.isoformat())
        if kind is timedelta:
            return self._note(path, "timedelta", None, [value.days, value.seconds, value.microseconds])
        for base in (int, str):  # an IntEnum, a StrEnum: equal to its value
            if isinstance(value, base):
                return base(value.value if hasattr(value, "value") else value)
        return value if _is_loadable(value) else self._reject(value, path)

    def _convert_mapping(self, value: dict[Any, Any], path: tuple[Any, ...]) -> Any:
        plain: dict[Any, Any] = type(value)()
        is_changed = False
        for key, part in value.items():
            plain_key = _plain_key(key)
            converted = _LEFT_OUT
            if plain_key is _LEFT_OUT:
                self._reject(key, (*path, f"key {key}"))
            else:
                converted = self.convert(part, (*path, plain_key))
            if converted is not _LEFT_OUT:
                plain[plain_key] = converted
            is_changed = is_changed or converted is not part or plain_key is not key
        if is_changed and isinstance(value, OrderedDict):
            vars(plain).update(vars(value))  # a state_dict keeps the versions of its modules in an attribute
        return plain if is_changed else value

    def _convert_items(self, value: Any, path: tuple[Any, ...]) -> Any:
        items, num_types = list(value), len(self.types)
        plain = [self.convert(part, (*path, position)) for position, part in enumerate(items)]
        if all(new is old for new, old in zip(plain, items, strict=True)):
            return value
        if type(value) is set:  # its parts have no position
            del self.types[num_types:]
            return self._note(path, "set", None, items)
        return type(value)(None if part is _LEFT_OUT else part for part in plain)

    def _note(self, path: tuple[Any, ...], kind: str, details: Any, plain: Any) -> Any:
        converted = self.convert(plain, path)
        self.types.append([list(path), kind, details])  # after its parts, which are restored first
        return converted

    def _reject(self, value: Any, path: tuple[Any, ...]) -> Any:
        if not (self._restores_attributes and path[0] == "lr_schedulers" and isinstance(value, LRScheduler)):
            self.rejected[".".join(map(str, path))] = type_name(value)
        return _LEFT_OUT


def type_name_of(factory: type[Any] | None) -> str | None:
    """Return the name of a class, None for None."""
    return None if factory is None else factory.__name__


def _plain_key(key: Any) -> Any:
    if type(key) in _ATOMS:
        return key
    if type(key) is tuple:
        return key if all(type(part) in _ATOMS for part in key) else _LEFT_OUT
    if isinstance(key, np.generic):
        return key.item()  # equal, with the same hash
    for base in (int, str):
        if isinstance(key, base):
            return base(key.value if hasattr(key, "value") else key)
    return key if _is_loadable(key) else _LEFT_OUT


def _is_loadable(value: Any) -> bool:
    """Return whether torch loads a value of a type that is rarely seen."""
    kind = type(value)
    is_torch = kind.__module__.partition(".")[0] == "torch" and not isinstance(value, torch.nn.Module)
    if isinstance(value, torch.Tensor) and is_torch:
        return True
    if not is_torch and kind not in torch.serialization.get_safe_globals():
        return False
    try:
        with io.BytesIO() as file:
            torch.save(value, file)
            file.seek(0)
            torch.load(file, weights_only=True)
    except (pickle.PickleError, TypeError, AttributeError, RuntimeError, NotImplementedError):
        return False
    return True


def _describe(value: partial[Any]) -> dict[str, Any]:
    function: Any = value.func
    if not hasattr(function, "__qualname__"):
        return {"_target_": function}
    positional = {"_args_": list(value.args)} if value.args else {}
    target = f"{function.__module__}.{function.__qualname__}"
    return {"_target_": target, "_partial_": True, **positional, **value.keywords}


def _of_config(config: Any) -> Any:
    try:
        return OmegaConf.to_container(config, resolve=True)
    except Exception:  # noqa: BLE001 - an interpolation of another config: any error of any resolver
        return OmegaConf.to_container(config, resolve=False)


def _of_array(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind in "SU":
        return array.tolist()
    numbers = array.view(np.int64) if array.dtype.kind in "mM" else array
    native = np.ascontiguousarray(numbers).astype(numbers.dtype.newbyteorder("="), copy=True)
    try:
        return torch.from_numpy(native.reshape(array.shape))
    except TypeError:  # a type that torch lacks, such as longdouble
        return native.tobytes()


def _dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return a dtype that a file names; of text only for text: `np.bytes_` of a number has that many bytes."""
    kind = np.dtype(name)
    if kind.kind not in "biufcSUmM" or (kind.kind in "SU" and not isinstance(value, (str, bytes, list))):
        raise ValueError(f"{name} for {type_name(value)}")
    return kind


def _to_array(value: Any, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
    kind = _dtype(dtype, value)
    if isinstance(value, list) and len(value) * kind.itemsize > MAX_TEXT_BYTES:
        raise ValueError(f"{len(value)} texts of {kind.itemsize} bytes")
    if isinstance(value, bytes):
        return np.frombuffer(value, dtype=kind.newbyteorder("=")).reshape(shape).astype(kind)
    if isinstance(value, torch.Tensor):
        array: np.ndarray[Any, Any] = value.cpu().numpy().copy()
        return array.view(kind) if kind.kind in "mM" else array.astype(kind)
    return np.array(value, dtype=kind).reshape(shape)


def _restored(kind: str, details: Any, value: Any) -> Any:
    return _RESTORE[kind](value, details)


def _replaced(node: Any, path: list[Any], restore: Callable[[Any], Any]) -> Any:
    """Return a nested value with the value at `path` restored."""
    if not path:
        return restore(node)
    key, *rest = path
    if isinstance(node, tuple):
        items = list(node)
        items[key] = _replaced(items[key], rest, restore)
        return tuple(items)
    node[key] = _replaced(node[key], rest, restore)
    return node
