"""What a config given on resume changes, and whether that comes to anything: a checkpoint holds settings too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.redact import MASK, is_secret_key

# Belongs to a start, not to the run.
OF_A_START = ("resume", "sweep", "ckpt_path", "ckpt_sha256")
# What changes how batches are made, not what is in them.
HOW_DATA_COMES = {"num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "data_dir", "local_dirs"}
# Taken as they are given, but the numbers are no longer those that the run would have had.
CHANGES_NUMBERS = {
    "trainer": {
        "accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "accumulate_grad_batches",
        "limit_train_batches", "gradient_clip_val", "gradient_clip_algorithm", "sync_batchnorm", "overfit_batches",
    },
    "resilience": {"exact_resume"},
}  # fmt: skip
PATIENCE = "patience"  # the one setting that Lightning's early stopping takes from the checkpoint
ABSENT = object()


@dataclass
class ConfigDiff:
    """What differs between the config of a run and the one it is to go on with.

    Attributes:
        takes_effect: One line for each difference that the run goes on with.
        refused: One line for each that would be ignored or cannot be.
        applied: The keys of `resume.apply` whose value is another than the run's.
    """

    takes_effect: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)


def diff_configs(saved: DictConfig, now: DictConfig) -> ConfigDiff:
    """Return what differs between the config that a run was saved with and the one given now.

    Args:
        saved: As Hydra wrote it.
        now: As composed; its `resume.reset` and `resume.apply` say what shall take effect though a checkpoint holds it.
    """
    before, after = (_plain(cfg) for cfg in (saved, now))
    reset, apply = (list(now.resume.get(name) or ()) for name in ("reset", "apply"))
    diff = ConfigDiff()
    for key, old, new in _differences(before, after):
        change = f"{key} {_shown(key, old)} -> {_shown(key, new)}"
        holder = checkpoint_owner(key, before, after)
        if holder is not None:
            _classify_checkpointed(diff, key, change, holder, new, reset=reset, apply=apply)
        elif key == "seed" or (key.startswith("data.") and key.rpartition(".")[2] not in HOW_DATA_COMES):
            diff.refused.append(
                f"{change}: is incompatible, the batches would be others than those the run has counted; "
                "leave it, or start a new run from the weights with resume.mode=weights"
            )
        elif key.partition(".")[2].partition(".")[0] in CHANGES_NUMBERS.get(key.partition(".")[0], ()):
            diff.takes_effect.append(f"{change} takes effect; the run no longer ends as it would have")
        elif key.startswith("model."):
            diff.takes_effect.append(
                f"{change} takes effect if the weights fit; the run no longer ends as it would have"
            )
        else:
            diff.takes_effect.append(f"{change} takes effect")
    diff.refused += [
        f"resume.apply=[{key}]: is no setting of an optimizer, a scheduler or the patience of early stopping; "
        "what else is given takes effect, or is refused, without it"
        for key in apply
        if checkpoint_owner(key, before, after) is None
    ]
    return diff


def checkpoint_owner(key: str, *configs: Mapping[str, Any]) -> str | None:
    """Return what of a checkpoint holds the value of a key: `optimizer`, `scheduler`, `callback`, or None.

    Args:
        key: Dotted, e.g. `model.optimizer.lr`.
        configs: Plain configs in which the parts that hold the key are looked up.
    """
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
            if target.endswith(".EarlyStopping") and parts[-1] == PATIENCE:
                return "callback"
    return None


def _classify_checkpointed(
    diff: ConfigDiff, key: str, change: str, holder: str, new: Any, *, reset: Sequence[str], apply: Sequence[str]
) -> None:
    if holder in reset:
        diff.takes_effect.append(f"{change} takes effect, the {holder} begins anew (resume.reset)")
    elif new is ABSENT or key.endswith("._target_") or isinstance(new, Mapping):
        remedy = f"add resume.reset=[{holder}]"
        diff.refused.append(
            f"{change}: is incompatible with the {holder}'s state in the checkpoint; leave it, or {remedy}"
        )
    elif key in apply:
        diff.applied.append(key)
        diff.takes_effect.append(f"{change} takes effect (resume.apply)")
    else:
        also = "" if holder == "callback" else f", or resume.reset=[{holder}] to begin it anew"
        diff.refused.append(
            f"{change}: would be ignored, the checkpoint holds the old value; add resume.apply=[{key}]{also}"
        )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in OF_A_START}


def _differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        if before != after:
            yield key, before, after
        return
    for name in dict.fromkeys((*before, *after)):
        inner = f"{key}.{name}" if key else str(name)
        yield from _differences(before.get(name, ABSENT), after.get(name, ABSENT), inner)


def _shown(key: str, value: Any) -> str:
    if value is ABSENT:
        return "(absent)"
    if is_secret_key(key):
        return MASK
    return str(value) if not isinstance(value, Mapping) else str(value.get("_target_", "{...}"))
