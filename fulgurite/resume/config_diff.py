"""Compare the config of a resume with the run's own: a checkpoint holds settings too, and restores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.redact import MASK, is_secret_key, without_secrets

OF_ONE_START = ("resume", "sweep", "ckpt_path", "ckpt_sha256", "validate")
# These change how batches are loaded, not their content
DATA_LOADING = {"num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "data_dir", "local_dirs"}
# These take effect, but the run no longer ends with the numbers of an uninterrupted one
CHANGES_NUMBERS = {
    "trainer": {
        "accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "accumulate_grad_batches",
        "limit_train_batches", "gradient_clip_val", "gradient_clip_algorithm", "sync_batchnorm", "overfit_batches",
    },
    "resilience": {"exact_resume"},
}  # fmt: skip
OTHER_NUMBERS = "takes effect; the run no longer matches an uninterrupted one"
OF_MODEL = "takes effect if the weights fit; the run no longer matches an uninterrupted one"
STATES = ("optimizer", "scheduler")
KEEPS_STATES = (
    ". Its optimizers and schedulers keep the settings of the checkpoint: for a learning rate or a weight decay pass "
    f"resume.reset=[{','.join(STATES)}]"
)
MISSING = object()


@dataclass
class ConfigDiff:
    """The differences between the config of a run and the one to resume with, one line each."""

    takes_effect: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)  # the checkpoint would override them, or they are not possible
    applied: list[str] = field(default_factory=list)  # keys of `resume.apply` whose value differs from the run's


def diff_configs(saved: DictConfig, current: DictConfig) -> ConfigDiff:
    """Return the differences between the config that Hydra saved with a run and the current one.

    `resume.reset` and `resume.apply` of the current config select values that replace those of the checkpoint.
    """
    before, after = (_plain(cfg) for cfg in (saved, current))
    reset, apply = (list(current.resume.get(name) or ()) for name in ("reset", "apply"))
    diff = ConfigDiff()
    for key, old, new in _differences(before, after):
        change = f"{key} {_format_value(key, old)} -> {_format_value(key, new)}"
        owner = checkpoint_owner(key, before, after)
        group, _, name = key.partition(".")
        if owner is not None:
            _classify_checkpointed(diff, key, change, owner, new, reset=reset, apply=apply)
        elif key == "seed" or (group == "data" and key.rpartition(".")[2] not in DATA_LOADING):
            diff.rejected.append(
                f"{change}: the batches would differ from those already counted. "
                "Remove the change, or start a new run from the weights with resume.mode=weights."
            )
        elif name.partition(".")[0] in CHANGES_NUMBERS.get(group, ()):
            diff.takes_effect.append(f"{change} {OTHER_NUMBERS}")
        elif group == "model" and name:
            diff.takes_effect.append(f"{change} {OF_MODEL}" + ("" if {*STATES} <= {*reset} else KEEPS_STATES))
        else:
            diff.takes_effect.append(f"{change} takes effect")
    diff.rejected += [
        f"resume.apply=[{key}]: not a setting of an optimizer, a scheduler or EarlyStopping's patience. "
        "Remove the key: other changes need no resume.apply."
        for key in apply
        if checkpoint_owner(key, before, after) is None
    ]
    return diff


def checkpoint_owner(key: str, *configs: Mapping[str, Any]) -> str | None:
    """Return the part of a checkpoint that holds a dotted key: `optimizer`, `scheduler`, `callback` or None."""
    parts = key.split(".")
    for config in configs:
        node: Any = config
        for part in parts[:-1]:
            node = node.get(part) if isinstance(node, Mapping) else None
            target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
            if target.startswith("torch.optim.lr_scheduler."):
                return "scheduler"
            if target.startswith("torch.optim."):
                return "optimizer"
            # the only setting that Lightning's EarlyStopping restores
            if target.endswith(".EarlyStopping") and parts[-1] == "patience":
                return "callback"
    return None


def _classify_checkpointed(
    diff: ConfigDiff, key: str, change: str, owner: str, new: Any, *, reset: Sequence[str], apply: Sequence[str]
) -> None:
    if owner in reset:
        diff.takes_effect.append(f"{change} takes effect, and the {owner} is reset (resume.reset)")
    elif new is MISSING or key.endswith("._target_") or isinstance(new, Mapping):
        diff.rejected.append(
            f"{change}: the checkpoint holds the state of another {owner}. "
            f"Remove the change, or pass resume.reset=[{owner}]."
        )
    elif key in apply:
        diff.applied.append(key)
        diff.takes_effect.append(f"{change} takes effect (resume.apply)")
    else:
        or_reset = "" if owner == "callback" else f", or reset the {owner} with resume.reset=[{owner}]"
        diff.rejected.append(f"{change}: the checkpoint restores the old value. Pass resume.apply=[{key}]{or_reset}.")


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in OF_ONE_START}


def _differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        # the run's file has *** in place of secrets
        if before not in (after, without_secrets(after, key, certain=True)):
            yield key, before, after
        return
    for name in dict.fromkeys((*before, *after)):
        inner = f"{key}.{name}" if key else str(name)
        yield from _differences(before.get(name, MISSING), after.get(name, MISSING), inner)


def _format_value(key: str, value: Any) -> str:
    if value is MISSING:
        return "(missing)"
    if is_secret_key(key):
        return MASK
    return str(value.get("_target_", "{...}") if isinstance(value, Mapping) else without_secrets(value))
