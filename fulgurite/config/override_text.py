"""Read and write Hydra overrides as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

LAST, AUTO = "last", "auto"


# Keys of a single start, which a resumed run does not inherit.
NOT_INHERITED = ("resume", "ckpt_path", "ckpt_sha256")


# Keys of a training, which an evaluation of its checkpoint does not inherit.
OF_TRAINING = (*NOT_INHERITED, "train", "test", "task_name", "optimized_metric", "hparams_search")


# Folders and sweeps are those of each start; Hydra's other settings belong to the run.
NOT_INHERITED_HYDRA = (
    "hydra.run.",
    "hydra.sweep.",
    "hydra.sweeper",
    "hydra.launcher",
    "hydra.output_subdir",
    "hydra.mode",
)


def quoted(path: Path) -> str:
    """Return a path as a value of Hydra's command line."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _is_of(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _with_plus(word: str) -> str:
    return word if word.startswith(("+", "~")) else f"++{word}"


def _value_of(words: Sequence[str], key: str) -> str | None:
    values = [word.partition("=")[2] for word in words if _key(word) == key]
    return values[-1] if values else None


def set_config_value(config: DictConfig, key: str, value: Any) -> None:
    """Set a key of a composed config, also one that Hydra protects."""
    holder = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
    with read_write(holder), open_dict(holder):
        holder[key.rpartition(".")[2]] = value
