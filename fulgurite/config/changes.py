"""The first lines of a run: its directory, and what differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import is_sweep_job
from fulgurite.config.left_out import log_left_out
from fulgurite.config.override_text import is_below, override_key
from fulgurite.config.tracing.settings import read_yaml, shown_path
from fulgurite.config.view import leaves_of
from fulgurite.core.context import current_context
from fulgurite.core.formatting import short_path, show_config
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.core.redact import mask_config, mask_override

COMMAND_LINE = "command line"
# groups whose files set keys of any other group, in the order in which they win
OVERLAYS = ("debug", "local", "hparams_search", "experiment")
NOT_SHOWN = ("hydra", "resume.run", "ckpt_path", "ckpt_sha256")  # a resumed run is announced by its own line

log = RankedLogger(__name__)


def log_start(cfg: DictConfig, print_config: bool | Literal["full"]) -> None:
    """Log the run directory, what composing left out, and what the config changes.

    A job of a sweep logs one line for the first and the last.

    Args:
        cfg: A composed config.
        print_config: True logs what differs from the defaults, `full` also prints the whole config.
    """
    folder, is_job = short_path(cfg.paths.output_dir), is_sweep_job()
    if is_job:
        log.info("job %s in %s  %s", HydraConfig.get().job.num, folder, " ".join(_values_of_job()))
    else:
        log.info("run %s", folder)
    log_left_out()
    if print_config and not is_job:
        for source, lines in changes(cfg) or [("config", ["the defaults"])]:
            log.info("%s: %s", source, "  ".join(lines))
    if print_config == "full" and rank() == 0:
        show_config(mask_config(cfg))


def _values_of_job() -> list[str]:
    """Return the overrides of a sweep job that the command line does not have in this form."""
    given = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False) or []
    typed = {argument.casefold() for argument in current_context().argv}  # Hydra writes false as False
    return [mask_override(str(override)) for override in given if str(override).casefold() not in typed]


def changes(cfg: DictConfig) -> list[tuple[str, list[str]]]:
    """Return what differs from the defaults: each source, `command line` or a file, with its overrides.

    A key is named once, with the source that won. Secrets are masked. Empty for a config that `hydra.main` did not
    compose.
    """
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    overrides = [str(override) for override in OmegaConf.to_container(hydra.overrides.task, resolve=False) or ()]
    typed = [override for override in overrides if not is_below(override_key(override), NOT_SHOWN)]
    choices = hydra.runtime.choices
    found = [(COMMAND_LINE, [mask_override(override) for override in typed])]
    seen = [override_key(override) for override in typed]
    values = mask_config(cfg)
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    for group in OVERLAYS:
        chosen = choices.get(group)
        for name in [chosen] if chosen is None or isinstance(chosen, str) else chosen:
            for file in _with_parents(f"{group}/{name}", folders):
                # a chosen file is merged before the keys that experiments set in it
                set_keys = [key for key in seen if key not in choices]
                keys = [(line, override_key(line)) for line in _lines(file, values, choices)]
                new = [(line, key) for line, key in keys if not is_below(key, seen if key in choices else set_keys)]
                seen += [key for _, key in new]
                found.append((shown_path(file), [line for line, _ in new]))
    return [(source, lines) for source, lines in found if lines]


def _with_parents(config: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the file of a config such as `experiment/mine`, and those in its defaults list; the first one wins."""
    file = next((path for folder in folders if (path := folder / f"{config}.yaml").is_file()), None)
    if file is None:
        return
    parents = [*parents_of(read_yaml(file).get("defaults"), config.rpartition("/")[0])]
    for parent in reversed(parents if None in parents else [*parents, None]):
        if parent is None:
            yield file
        elif parent.split("/")[0] in OVERLAYS:
            yield from _with_parents(parent, folders)


def parents_of(defaults: Any, group: str) -> Iterator[str | None]:
    """Yield the configs that a defaults list adds, and None for the file itself."""
    for default in defaults or ():
        for key, choice in default.items() if isinstance(default, dict) else [("", default)]:
            if str(key).startswith("override "):
                continue
            for name in choice if isinstance(choice, list) else [choice]:
                path = "/".join(filter(None, [_path(key), _path(name)]))
                yield None if name == "_self_" else path[1:] if path.startswith("/") else normpath(f"{group}/{path}")


def _path(text: Any) -> str:
    return str(text).removeprefix("optional ").partition("@")[0].strip()


def _lines(file: Path, values: dict[str, Any], choices: Mapping[str, Any]) -> Iterator[str]:
    """Yield the group choices and the keys that a file sets, with the values that the run has."""
    content = read_yaml(file)
    for default in content.pop("defaults", None) or ():
        for key, choice in default.items() if isinstance(default, dict) else ():
            if str(key).startswith("override "):
                group = str(key).removeprefix("override ").strip(" /")
                yield f"{group}={_text(choices.get(group, choice))}"
    for key, _ in leaves_of(content):
        node: Any = values
        for part in key.split("."):
            node = node.get(part, ...) if isinstance(node, dict) else ...
        if node is not ... and not is_below(key, NOT_SHOWN):
            yield f"{key}={_text(node)}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    return str(value)
