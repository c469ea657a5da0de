"""Name state that data sets change in DataLoader workers, where each worker has a copy."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable

from lightning.pytorch import Trainer
from torch.utils.data import IterableDataset

from fulgurite.compat.lightning import train_loaders
from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.user_state.loader_owners import datasets_of


def name_worker_copies(trainer: Trainer) -> None:
    """Name the attributes that `__getitem__` of a data set assigns in workers."""
    for loader in train_loaders(trainer):
        for dataset in datasets_of(loader) if getattr(loader, "num_workers", 0) else []:
            if isinstance(dataset, IterableDataset):
                continue  # a stream is named where it has no state
            for name in _assigned_in(type(dataset), ("__getitem__", "__getitems__")):
                name_inexact(
                    f"{type(dataset).__name__}.{name}",
                    "the data set changes it in DataLoader workers, whose copies a resumed run does not have. "
                    "Make it a function of the index and the epoch, or set data.num_workers=0.",
                )


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
