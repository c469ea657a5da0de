"""Name state that user code changes in DataLoader workers, where each worker has a copy."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import IterableDataset, get_worker_info

from fulgurite.compat.lightning import train_loaders
from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.objects.walk import Known, fingerprint
from fulgurite.exact_resume.used_code.reachable import names_of, reach, variables
from fulgurite.exact_resume.user_state.loader_owners import LOADERS, datasets_of
from fulgurite.exact_resume.values.generator_states import GENERATORS
from fulgurite.exact_resume.values.kinds import closure, is_infrastructure, is_users, parts_of
from fulgurite.exact_resume.values.leaves import is_leaf

CODE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, staticmethod, classmethod, property)
UNSEEDED = "generator"  # the fingerprint of any generator that is not known
SLOT_BYTES = 2048  # of the names that one worker reports
REASON = (
    "DataLoader workers change it, and a resumed run does not give them what they had. "
    "Make it a function of the index and the epoch, or set num_workers=0."
)


class WorkerWatch:
    """Finds in workers what data sets, transforms and functions change, and reports it to the training process."""

    def __init__(self, num_workers: int, roots: tuple[Any, ...]) -> None:
        self._roots = roots  # data set, collate function and `worker_init_fn` of a loader
        # by worker: names on a line each, to which a worker only adds, and their bytes, which are set last
        self._slots = torch.zeros(num_workers, SLOT_BYTES, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self._ends = torch.zeros(num_workers, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._num_batches = 0
        self._seeded: list[Any] = []
        self._first: dict[str, list[Any]] = {}
        self._started: dict[str, list[Any]] | None = None

    def start_persistent(self) -> None:
        """Take the state that workers start with which live longer than a pass."""
        self._started = _fingerprints(self._roots, [])

    def before_batch(self, seeded: list[Any]) -> None:
        """Take the state before the first batch; called in a worker."""
        self._seeded, self._num_batches = seeded, 0
        self._first = _fingerprints(self._roots, seeded)

    def after_batch(self) -> None:
        """Compare the state after the batches 1, 2, 4, 8 and so on; called in a worker."""
        self._num_batches += 1
        if self._num_batches & (self._num_batches - 1) == 0:
            now = _fingerprints(self._roots, self._seeded)
            # what was made or opened since: its later changes count; an unseeded generator is a change itself
            late = {name: parts for name, parts in now.items() if name not in self._first and UNSEEDED not in parts}
            self._first.update(late)
            names = [name for name in now if now[name] != self._first.get(name)]
            if names and (info := get_worker_info()) is not None:
                self._write(info.id, names)

    def names(self) -> list[str]:
        """Return what workers changed so far, or what persistent ones did not; called in the training process."""
        now = {} if self._started is None else _fingerprints(self._roots, [])
        names = {name: None for name in now if now[name] != (self._started or {}).get(name)}
        # `nonzero` counts twice, and raises where a worker writes in between
        for worker in (number for number, end in enumerate(self._ends.tolist()) if end):
            names |= dict.fromkeys(self._read(worker))
        return list(names)

    def _read(self, worker: int) -> list[str]:
        end = int(self._ends[worker])
        return bytes(self._slots[worker, :end].tolist()).decode().splitlines()

    def _write(self, worker: int, names: list[str]) -> None:
        end, present = int(self._ends[worker]), self._read(worker)
        for line in (f"{name}\n".encode() for name in names if name not in present):
            if end + len(line) <= SLOT_BYTES:
                self._slots[worker, end : end + len(line)] = torch.frombuffer(bytearray(line), dtype=torch.uint8)
                end += len(line)
        self._ends[worker] = end


def make_watch(loader: Any) -> WorkerWatch | None:
    """Return a watch of a loader's workers, if it has any."""
    roots = (loader.dataset, loader.collate_fn, loader.worker_init_fn)
    return WorkerWatch(loader.num_workers, roots) if loader.num_workers else None


def _fingerprints(roots: tuple[Any, ...], seeded: list[Any]) -> dict[str, list[Any]]:
    """Return fingerprints of what roots reach, by name: one for each object of a class."""
    state, reached = _reached_state(*roots)
    known = Known((value, "") for value in [*filter(_is_apart, reached), *seeded])
    return {name: [_fingerprint(value, known) for value in values] for name, values in state.items()}


def _fingerprint(value: Any, known: Known) -> Any:
    return UNSEEDED if isinstance(value, GENERATORS) else fingerprint(value, known, thorough=False)


def _reached_state(*roots: Any) -> tuple[dict[str, list[Any]], list[Any]]:
    """Return what user code may change, by name: `Class.x`, `function.x`, `module.x`; and the objects that hold it."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    reached = reach(*roots)
    for value in reached:
        for name, part in _values_of(value):
            kind: Any = type(part)
            is_code = part is None or isinstance(part, CODE) or is_infrastructure(kind)
            if not is_code and not name.rpartition(".")[2].startswith("__"):
                found[name].append(part)
    return found, reached


def _is_apart(value: Any) -> bool:
    """Return whether what an object holds is no part of the fingerprint of its holder.

    What code and objects of the user hold has names of its own. What objects of libraries keep between two calls, such
    as the parameters of the last augmentation, is no state; of those of Python it is: a `multiprocessing.Value`.
    """
    kind: Any = type(value)
    if isinstance(value, (*CODE, partial, *GENERATORS)):
        return True
    return not (is_leaf(kind) or kind.__module__.partition(".")[0] in sys.stdlib_module_names)


def _values_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, FunctionType):
        for name, part in {**vars(value), **closure(value), **_defaults(value)}.items():
            yield f"{value.__qualname__}.{name}", part
        for namespace, name in variables(value):
            yield f"{namespace.get('__name__')}.{name}", namespace[name]
    elif isinstance(value, partial):
        function = getattr(value.func, "__qualname__", type(value.func).__qualname__)
        yield from ((f"partial({function}) argument {number}", part) for number, part in enumerate(value.args, 1))
        yield from ((f"partial({function}) {name}", part) for name, part in value.keywords.items())
    elif isinstance(value, type):
        for kind in value.__mro__:
            if is_users(kind.__module__):
                yield from ((f"{kind.__qualname__}.{name}", part) for name, part in vars(kind).items())
    elif is_users(type(value).__module__):
        yield from ((f"{type(value).__qualname__}.{name}", part) for name, part in parts_of(value).items())


def _defaults(function: FunctionType) -> dict[str, Any]:
    """Return the default values of a function by argument."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(names, values, strict=True)), **(function.__kwdefaults__ or {})}


def name_worker_changes(trainer: Trainer) -> None:
    """Name what workers reported since their start."""
    for loader in chain.from_iterable(vars(trainer).get(LOADERS, {}).values()):
        for name in loader.watch.names() if getattr(loader, "watch", None) is not None else ():
            name_inexact(name, REASON)


def name_worker_copies(trainer: Trainer) -> None:
    """Name what `__getitem__` of a data set assigns in workers, and progress that it reads, before the first batch."""
    for loader in train_loaders(trainer):
        for progress in _progress_read(loader) if getattr(loader, "num_workers", 0) else ():
            name_inexact(
                f"trainer.{progress}",
                "the data set reads it in DataLoader workers, which have it from their start, and those of "
                "a resumed run start later. Set num_workers=0, or an attribute of the data set before each epoch.",
            )
        for dataset in datasets_of(loader) if getattr(loader, "num_workers", 0) else []:
            if isinstance(dataset, IterableDataset):
                continue  # a stream is named where it has no state
            for name in _assigned_in(type(dataset), ("__getitem__", "__getitems__")):
                # what starts as None is a file that a worker opens, or found by the worker's watch
                if getattr(dataset, "__dict__", {}).get(name) is not None:
                    name_inexact(f"{type(dataset).__qualname__}.{name}", REASON)


def _progress_read(loader: Any) -> list[str]:
    """Return which progress of the trainer the data sets of a loader read that its workers have from their start."""
    progress = {"global_step", *(["current_epoch"] if getattr(loader, "persistent_workers", False) else [])}
    kinds = {kind for dataset in datasets_of(loader) for kind in type(dataset).__mro__ if is_users(kind.__module__)}
    names = [names_of(each) for kind in kinds for each in vars(kind).values() if isinstance(each, FunctionType)]
    return sorted({name for each in names if "trainer" in each for name in each if name in progress})


def _assigned_in(kind: type, methods: Iterable[str]) -> list[str]:
    """Return the attributes of `self` that methods assign, or an item of which they assign; empty without source."""
    names: dict[str, None] = {}
    for function in filter(None, (getattr(kind, method, None) for method in methods)):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, (ast.Attribute, ast.Subscript)) or not isinstance(node.ctx, ast.Store):
                continue
            part = node.value if isinstance(node, ast.Subscript) else node
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
                names[part.attr] = None
    return list(names)
