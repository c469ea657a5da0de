"""Resume loaders that define their own order: by their own state, else by reading past the batches trained on."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils._pytree import tree_flatten
from torch.utils.data import IterableDataset

from fulgurite.compat.lightning import prefetched_batches, train_loaders
from fulgurite.core.context import setting
from fulgurite.core.errors import UserError
from fulgurite.core.exactness import name_inexact
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.exact_resume.order.passes import Pass
from fulgurite.exact_resume.streams.cursor import StreamCursor, StreamSpec, restart_setting

log = RankedLogger(__name__)

CURSOR = "_fulgurite_cursor"  # attribute of a followed loader


def follow(loader: Any, spec: StreamSpec, place: str = "") -> bool:
    """Make a loader resume at its position, in place.

    Returns:
        Whether that is possible. It is not for objects that cannot be iterated or have no attributes.
    """
    if (cursor := _cursor(loader)) is not None:
        cursor.spec, cursor.place = spec, place  # the data module returned this loader before
        return True
    iterate: Any = getattr(type(loader), "__iter__", None)
    if iterate is None:
        return False
    source = _stateful_source(loader)
    cursor = StreamCursor(loader, spec, place, iterate, source)
    try:
        vars(loader)[CURSOR] = cursor
        loader.__class__ = _followed_class(cast("Hashable", type(loader)))
    except TypeError:  # a built-in or a compiled class
        return False
    if (world_size := spec.trainer.world_size) > 1:
        log.info(
            "%s: a stream is not split among processes: each of the %d reads all that its data set yields. Unless its "
            "__iter__ takes only the examples of its rank (torch.distributed.get_rank()), all train on the same ones.",
            cursor.name,
            world_size,
        )
    if source is None:
        name_inexact(cursor.name, _reason(loader, spec))
        # Lightning warns of loaders without state_dict(), which is no longer true and names nothing
        warnings.filterwarnings("ignore", message=".*and your dataloader is not resumable")
    elif vars(loader).get("num_workers"):
        name_inexact(
            cursor.name,
            f"what its {loader.num_workers} workers draw from global random generators is not part of its state. "
            "If they draw, use num_workers=0, or a generator that state_dict() saves.",
        )
    return True


def follow_all(loaders: Any, spec: StreamSpec | None) -> None:
    """Follow the loaders beside a stream too: Lightning fetches batches ahead if one loader has no length."""
    flat = loaders.flattened if isinstance(loaders, CombinedLoader) else tree_flatten(loaders)[0]
    if spec is not None and len(flat) > 1 and any(_cursor(loader) is not None for loader in flat):
        for number, loader in enumerate(flat):
            follow(loader, spec, str(number))


def is_followed(loader: Any) -> bool:
    """Return whether a cursor iterates a loader: it stands between the training and the loader."""
    return _cursor(loader) is not None


def stream_states(trainer: Trainer) -> list[dict[str, Any] | None]:
    """Return the positions of the loaders of a step, None for one that is no stream; empty without streams."""
    ahead = prefetched_batches(trainer)
    cursors = [_cursor(loader) for loader in train_loaders(trainer)]
    states = [None if cursor is None or cursor.epoch < 0 else cursor.state(ahead) for cursor in cursors]
    return states if any(states) else []


def load_stream_states(trainer: Trainer, ranks: Sequence[list[dict[str, Any] | None]]) -> None:
    """Give each stream the position of its rank.

    Raises:
        UserError: The run has another number of processes than the one that saved.
    """
    if ranks and len(ranks) != trainer.world_size:
        off = setting("resilience.exact_resume=false", "harden(exact_resume=False)")
        raise UserError(
            f"trainer.devices={trainer.num_devices}: the checkpoint has the positions of a stream in {len(ranks)} "
            f"processes, and this run has {trainer.world_size}. Use {len(ranks)}, or set {off}."
        )
    loaders = train_loaders(trainer)
    for loader, saved in zip(loaders, ranks[trainer.global_rank] if ranks else [], strict=False):
        if saved is not None and (cursor := _cursor(loader)) is not None:
            cursor.saved = saved


def _cursor(loader: Any) -> StreamCursor | None:
    return getattr(loader, "__dict__", {}).get(CURSOR)


@cache
def _followed_class(original: type) -> type:
    """Return a subclass whose iteration the cursor controls; name and behaviour are otherwise those of the class."""

    def iterate(self: Any) -> Iterator[Any]:
        cursor: StreamCursor = vars(self)[CURSOR]
        return Pass(lambda iterator: cursor.batches() if cursor.spec.is_trained(iterator) else cursor.look())

    return type(original.__name__, (original,), {"__iter__": iterate, "__module__": original.__module__})


def _stateful_source(loader: Any) -> Any:
    """Return the object that holds the position: the loader, or its data set if no workers have copies of it."""
    if _is_stateful(loader):
        return loader
    dataset = getattr(loader, "dataset", None)
    is_plain = isinstance(dataset, IterableDataset) and getattr(loader, "num_workers", 0) == 0
    return dataset if is_plain and _is_stateful(dataset) else None


def _is_stateful(source: Any) -> bool:
    return hasattr(source, "state_dict") and hasattr(source, "load_state_dict")


def _reason(loader: Any, spec: StreamSpec) -> str:
    """Say why a loader without a state of its own may differ after a resume, and what to write."""
    if _is_stateful(getattr(loader, "dataset", None)) and vars(loader).get("num_workers"):
        return (
            f"its state is in {loader.num_workers} workers, where a DataLoader cannot read it. "
            "Use torchdata's StatefulDataLoader, or num_workers=0."
        )
    if vars(loader).get("persistent_workers"):
        return (
            "it has no state_dict(), and persistent workers may keep something from epoch to epoch. "
            "Use torchdata's StatefulDataLoader, or persistent_workers=false."
        )
    if spec.resume == "restart":
        return f"a resumed run starts it over ({restart_setting()}), so that it sees other examples."
    return (
        "it has no state_dict(). A resumed run reads past the batches trained on, which is exact only if they are the "
        "same each time. Give it state_dict() and load_state_dict(), or use torchdata's StatefulDataLoader."
    )
