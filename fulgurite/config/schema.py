"""The config keys that the library reads: name, type, default and unit, each in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar, cast

from omegaconf import DictConfig, OmegaConf


@dataclass(frozen=True)
class Extras:
    """Output and conveniences."""

    group: ClassVar[str] = "extras"
    ignore_warnings: bool = False
    enforce_tags: bool = True
    find_nan: bool = False
    print_config: bool | Literal["full"] = True
    allowed_targets: list[str] = field(default_factory=list)  # modules that are refused otherwise


@dataclass(frozen=True)
class Resilience:
    """What a run survives, and how long it waits for what is slow."""

    group: ClassVar[str] = "resilience"
    exact_resume: bool = True
    stream_resume: Literal["skip", "restart"] = "skip"  # of streams without state_dict()
    save_attributes: bool = True
    async_checkpoints: bool = False
    worker_timeout_seconds: float = 600  # per batch; 0 waits forever
    grace_seconds: float = 60  # from the signal to the saved checkpoint
    logger_timeout_seconds: float = 30  # per run, all loggers together


@dataclass(frozen=True)
class Distributed:
    """How the ranks of a run find and reach one another."""

    group: ClassVar[str] = "distributed"
    rank_timeout_seconds: float = 600  # per collective
    init_method: str | None = "env://"  # URL
    interfaces: list[str] | None = None  # network interfaces
    comm_env: dict[str, Any] | None = field(default_factory=dict)  # environment variables


@dataclass(frozen=True)
class Resume:
    """Which run to resume, and how."""

    group: ClassVar[str] = "resume"
    run: str | None = None
    mode: Literal["continue", "hotstart", "weights"] = "continue"
    reset: list[Literal["optimizer", "scheduler"]] = field(default_factory=list)
    apply: list[str] = field(default_factory=list)  # dotted keys
    skip: list[str] = field(default_factory=list)  # names of modules or parameters


@dataclass(frozen=True)
class Sweep:
    """How a grid sweep or a search treats failed jobs and an earlier sweep."""

    group: ClassVar[str] = "sweep"
    resume: str | None = None
    retry_failed: bool = False
    on_error: Literal["continue", "stop"] = "continue"
    dry_run: bool = False


@dataclass(frozen=True)
class Paths:
    """Folders; every default is an interpolation of configs/paths/default.yaml."""

    group: ClassVar[str] = "paths"
    root_dir: str
    data_dir: str
    log_dir: str
    output_dir: str
    work_dir: str


GROUPS: tuple[type[Any], ...] = (Extras, Resilience, Distributed, Resume, Sweep, Paths)
# Top-level keys with their types; "" is checked elsewhere. Any other key must be referred to by an interpolation.
TOP_LEVEL = {
    "task_name": "str",
    "tags": "",
    "train": "bool",
    "test": "bool",
    "seed": "int | None",
    "validate": "Literal['deep'] | None",
    "monitor": "str",
    "monitor_mode": "Literal['min', 'max']",
    "ckpt_path": "str | None",
    "ckpt_sha256": "str | None",
    "optimized_metric": "str | list[str] | None",
    "run": "str | None",
    "trust": "list[str] | None",  # read by trust.sources before the config is composed
    "trust_env": "list[str] | None",
    **dict.fromkeys(("data", "model", "trainer"), "dict"),
    **dict.fromkeys(("callbacks", "logger"), "dict | None"),
    "vars": "dict | None",  # values of the user's own
    **dict.fromkeys((schema.group for schema in GROUPS), "dict"),
    "hydra": "",
}
MOVED = {
    "extras.exact_resume": "resilience.exact_resume",
    "extras.async_checkpoints": "resilience.async_checkpoints",
    "extras.worker_timeout": "resilience.worker_timeout_seconds",
    "extras.grace_seconds": "resilience.grace_seconds",
    "extras.tracker_timeout": "resilience.logger_timeout_seconds",
    "extras.rank_timeout": "distributed.rank_timeout_seconds",
    "extras.init_method": "distributed.init_method",
    "extras.interfaces": "distributed.interfaces",
    "extras.comm_env": "distributed.comm_env",
}
_FORMER = {new: old for old, new in MOVED.items()}
Schema = TypeVar("Schema")


def field_types(schema: type[Any]) -> dict[str, str]:
    """Return the annotation of each key of a group as text."""
    return {one.name: str(one.type) for one in fields(schema)}


def read_settings(cfg: DictConfig, schema: type[Schema]) -> Schema:
    """Return one group of the library's keys, with the schema's default for each missing key.

    Args:
        cfg: A composed config, or the saved config of a run, which may have the keys where they formerly were.
        schema: `Extras`, `Resilience`, `Distributed`, `Resume`, `Sweep` or `Paths`.
    """
    given: dict[str, Any] = {}
    converters: dict[str, Callable[[Any], Any]] = {"bool": bool, "float": float}
    for one in fields(schema):  # type: ignore[arg-type]  # every schema is a dataclass
        key = f"{schema.group}.{one.name}"  # type: ignore[attr-defined]
        value = OmegaConf.select(cfg, key, default=...)
        if value is ... and key in _FORMER:
            value = OmegaConf.select(cfg, _FORMER[key], default=...)
        if value is ... or (value is None and "None" not in str(one.type)):
            continue
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        convert = converters.get(str(one.type))
        given[one.name] = convert(plain) if convert else plain
    return schema(**given)


def moved_key(key: str) -> str | None:
    """Return where a key of an earlier version is now; None for a key that has not moved."""
    for old, new in MOVED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :]
    return None


def describe_move(override: str) -> str | None:
    """Return the rule for an override or `<key>=<value>` whose key has moved; None for any other."""
    moved = _with_new_key(override)
    return f"moved. Use {moved}." if moved != override else None


def move_override(override: str) -> str:
    """Return an override of an earlier version as it is written now."""
    return _move_references(_with_new_key(override))


def _with_new_key(override: str) -> str:
    plain = override.lstrip("+~")
    key, equals, value = plain.partition("=")
    return f"{override[: len(override) - len(plain)]}{moved_key(key) or key}{equals}{value}"


def move_keys(cfg: DictConfig) -> DictConfig:
    """Return the saved config of a run with the keys of an earlier version, and references to them, moved."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    moved = _moved(plain)
    extras = moved.get("extras") or {}
    for old, new in MOVED.items():
        name, (group, new_name) = old.partition(".")[2], new.split(".")
        if name in extras:
            moved.setdefault(group, {}).setdefault(new_name, extras.pop(name))
    return cast("DictConfig", OmegaConf.create(moved))


def _moved(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _moved(child) for key, child in node.items()}
    if isinstance(node, list):
        return [_moved(child) for child in node]
    return _move_references(node) if isinstance(node, str) else node


def _move_references(text: str) -> str:
    for old, new in MOVED.items():
        text = text.replace(f"${{{old}}}", f"${{{new}}}")
    return text
