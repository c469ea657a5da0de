"""Compare the parameters of a checkpoint with those of a model, by name and shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.parameter import is_lazy

from fulgurite.compat.buffers import fit_buffers
from fulgurite.core.errors import UserError, suggest_or_list, suggest_path
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

MAX_SHOWN = 3  # parameters that an error names
MAX_LISTED = 8  # parameters that the log names


def matching_state(
    checkpoint: Mapping[str, Any],
    model: LightningModule,
    path: Path,
    skip: Sequence[str] = (),
    *,
    named: str = "",
    sharded: bool = False,
    report: bool = False,
) -> dict[str, Any]:
    """Return the `state_dict` of a checkpoint for a model, after a comparison of names and shapes.

    A model with `strict_loading = False` may lack values of the file, and the file values of the model. A model whose
    `on_load_checkpoint` adds or renames values is compared after it.

    Args:
        checkpoint: A loaded checkpoint.
        model: The model to load it into.
        path: The file, for messages.
        skip: Names of modules or parameters whose values stay as built.
        named: How the user named the file, as returned by `describe_source`. Default: by `ckpt_path`.
        sharded: Whether a strategy shards the model: only it can call `configure_model`, which needs its device mesh.
        report: Log the values of one side that the other lacks.

    Raises:
        UserError: The parameters differ, or a name of `skip` is unknown.
    """
    lacks = checkpoint["state_dict"].keys() - model.state_dict().keys()
    if lacks and is_overridden("configure_model", model) and not sharded:
        with torch.random.fork_rng(devices=[]):
            model.configure_model()  # Lightning calls it again, and asks that a second call changes nothing
    fit_buffers(model, checkpoint)
    ours = model.state_dict()
    _require_known(skip, {**ours, **checkpoint["state_dict"]})
    state = _without(checkpoint["state_dict"], skip)
    wanted = _without(ours, skip)
    differing = _differing(state, wanted, strict=model.strict_loading)
    if differing and is_overridden("on_load_checkpoint", model):
        changed = {**checkpoint, "state_dict": dict(state)}
        model.on_load_checkpoint(changed)
        if not _differing(after := _without(changed["state_dict"], skip), wanted, strict=model.strict_loading):
            state, differing = after, []
    if differing:
        raise UserError(_refusal(differing, state, wanted, named or f"ckpt_path={path}:"))
    if report:
        _report(state, checkpoint["state_dict"], ours, path)
    return state


def _report(state: Mapping[str, Any], saved: Mapping[str, Any], ours: Mapping[str, Any], path: Path) -> None:
    if missing := [name for name in ours if name not in state]:
        taken = len(ours) - len(missing)
        log.info("%s: took %d of %d values; these stay as built: %s", path, taken, len(ours), _listed(missing))
    if unused := [name for name in saved if name not in ours]:
        log.info("%s: has values that the model lacks: %s", path, _listed(unused))


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Return whether a name is one of the prefixes, or that of a parameter of such a module."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _without(state: Mapping[str, Any], skip: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not is_below(name, skip)}


def _differing(state: Mapping[str, Any], wanted: Mapping[str, Any], *, strict: bool) -> list[str]:
    """Return the names that do not match; without `strict` only other shapes, or all names if none is common."""
    common = [name for name in wanted if name in state]
    names = dict.fromkeys([*wanted, *state]) if strict or not common else common
    return [name for name in names if name not in common or not _same_shape(state[name], wanted[name])]


def _same_shape(one: Any, other: Any) -> bool:
    shapes = _shape(one), _shape(other)
    return shapes[0] == shapes[1] or None in shapes


def _shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor; None for any other state and for a lazy parameter."""
    return None if is_lazy(value) or not hasattr(value, "shape") else tuple(value.shape)


def _require_known(skip: Sequence[str], names: Iterable[str]) -> None:
    known = dict.fromkeys(name.rsplit(".", count)[0] for name in names for count in range(name.count(".") + 1))
    for prefix in skip:
        if prefix not in known:
            near = suggest_path(prefix, known) or suggest_or_list(prefix, known, "They have")
            raise UserError(
                f"resume.skip=[{prefix}]: neither the model nor the checkpoint has such a module or parameter{near}"
            )


def _refusal(differing: Sequence[str], state: Mapping[str, Any], wanted: Mapping[str, Any], named: str) -> str:
    def described(values: Mapping[str, Any], name: str) -> str:
        return str(_shape(values[name])) if name in values else "missing"

    shown = [
        f"{name} is {described(state, name)} in the file and {described(wanted, name)} in the model"
        for name in differing[:MAX_SHOWN]
    ]
    modules = dict.fromkeys(name.rpartition(".")[0] or name for name in differing)
    remedy = ""
    if len(differing) < len(wanted) and len(modules) <= MAX_SHOWN:
        remedy = f", or start from the other parameters with resume.mode=weights resume.skip=[{','.join(modules)}]"
    hint = ""
    if any(name not in wanted for name in differing):  # not another head alone
        hint = " If code changed the model while it trained, make these modules in configure_model."
    return (
        f"{named} was saved from another model ({'; '.join(shown)}; {len(differing)} in all). "
        f"Pass the model config of its run, e.g. experiment=<its experiment>{remedy}.{hint}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
