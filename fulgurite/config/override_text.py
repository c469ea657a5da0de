"""Read and write Hydra overrides as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.core.errors import UserError

LAST, AUTO = "last", "auto"
# Keys of a single start, which a resumed run does not inherit.
NOT_INHERITED = ("resume", "ckpt_path", "ckpt_sha256")
# Keys of a training, which an evaluation of its checkpoint does not inherit.
OF_TRAINING = (*NOT_INHERITED, "train", "test", "task_name", "optimized_metric", "hparams_search")
# Folders and sweeps are those of each start; Hydra's other settings belong to the run.
NOT_INHERITED_HYDRA = (
    "hydra.run.", "hydra.sweep.", "hydra.sweeper", "hydra.launcher", "hydra.output_subdir", "hydra.mode",
)  # fmt: skip

# Options of Hydra's command line whose value is the next argument.
_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
     "--experimental-rerun")
)  # fmt: skip

_OPTIONS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
    "--dry-run",
)  # fmt: skip


def options_first(arguments: Sequence[str]) -> list[str]:
    """Return a command line with its options before its overrides: argparse cannot read an override on each side."""
    options: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        last = options[-1] if options else ""
        is_value = last in _WITH_VALUE or (last in {"--info", "-i"} and "=" not in argument)
        (options if argument.startswith("-") or is_value else overrides).append(argument)
    return [*options, *overrides]


def refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Refuse an override that is written like an option; argparse would read `--experiment` as `--experimental-rerun`.

    Raises:
        UserError: All of them, one line each.
    """
    lines = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_option = any(option.startswith(name) for option in _OPTIONS) and name != "--experiment"
        # argparse reads -experiment=x as several options of one letter
        is_short = re.match(r"-[A-Za-z]\w", name) is not None and bool(equals) and name not in _WITH_VALUE
        if is_short or (len(name) > 2 and name.startswith("--") and not is_option):
            near = [] if equals else get_close_matches(name, _OPTIONS, n=1, cutoff=0.8)
            right = f"{name.lstrip('-')}={value if equals else '<value>'}"
            remedy = f"Write {near[0]}" if near else f"Values are set without dashes: {right}"
            lines.append(f"{argument}: there is no such option. {remedy}")
    if lines:
        raise UserError("\n".join(lines))


def as_grammar(override: str) -> str:
    """Return an override as Hydra's grammar reads it.

    A value with an equals sign, such as a checkpoint's file name, gets quotes. `choice(null,a)` becomes `null,a`.
    """
    key, equals, value = override.partition("=")
    if found := re.fullmatch(r"choice\((.*)\)", value):
        return f"{key}={found[1]}" if re.search(r"(^|,)\s*null\s*(,|$)", found[1]) else override
    if not equals or "=" not in value.lstrip("=") or re.search(r"""^=|["'()\[\]{}]""", value):
        return override
    return f"{key}={','.join(quoted(part) if '=' in part else part for part in value.split(','))}"


def without_null_groups(overrides: Sequence[str], is_group: Callable[[str], bool]) -> list[str]:
    """Return the overrides of one job with `group=null` written as Hydra's `~group`."""
    is_null = (text.endswith("=null") and text[0] not in "+~" and is_group(text[: -len("=null")]) for text in overrides)
    return [f"~{text[: -len('=null')]}" if null else text for text, null in zip(overrides, is_null, strict=True)]


def quoted(value: Path | str) -> str:
    """Return a path or a string as a value of Hydra's command line."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def override_key(override: str) -> str:
    """Return the key or group that an override sets, without its package."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def is_below(key: str, parents: Sequence[str]) -> bool:
    """Return whether a key is one of `parents` or below one."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def last_value(overrides: Sequence[str], key: str) -> str | None:
    """Return the text of a key's last value; None when no override sets it."""
    values = [override.partition("=")[2] for override in overrides if override_key(override) == key]
    return values[-1] if values else None


def is_hydra_overridden(config: DictConfig, key: str) -> bool:
    """Return whether the command line sets a key of the `hydra` node."""
    return any(override.lstrip("+").startswith(f"{key}=") for override in config.hydra.overrides.hydra)


def set_config_value(config: DictConfig, key: str, value: Any) -> None:
    """Set a key of a composed config, also one that Hydra protects."""
    holder = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
    with read_write(holder), open_dict(holder):
        holder[key.rpartition(".")[2]] = value
