"""Check every `_target_` block against the signature of its class or function."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from fulgurite.config.override_text import is_below
from fulgurite.config.target_policy import problem_of
from fulgurite.config.tracing.settings import shown_path
from fulgurite.config.view import UNKNOWN, ConfigView, join
from fulgurite.core.errors import did_you_mean, suggest_or_list
from fulgurite.core.project import project_root
from fulgurite.trust.targets import LOOKUPS, rejection_of
from fulgurite.validation.explanations.known_values import explain_known
from fulgurite.validation.findings import Finding
from fulgurite.validation.signatures.annotations import Match, choices, contradicts_default, describe, match, rejects
from fulgurite.validation.signatures.imports import find_broken_line
from fulgurite.validation.signatures.resolve import locate
from fulgurite.validation.signatures.signature import Parameter, Signature, read_signature
from fulgurite.validation.signatures.source import NotFound, find_module

SPECIAL_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")

RETIRED = ("lightning.pytorch.loggers.NeptuneLogger", "lightning.pytorch.loggers.neptune", "neptune")

# Targets that need an optional package: (modules, one of which must exist; extra of pyproject.toml).
OPTIONAL = {
    "lightning.pytorch.loggers.WandbLogger": (("wandb",), "wandb"),
    "lightning.pytorch.loggers.MLFlowLogger": (("mlflow",), "mlflow"),
    "lightning.pytorch.loggers.CometLogger": (("comet_ml",), "comet"),
    "lightning.pytorch.loggers.TensorBoardLogger": (("tensorboard", "tensorboardX"), "tensorboard"),
    "comet_ml": (("comet_ml",), "comet"),
    "fulgurite.callbacks.prometheus": (("prometheus_client",), "prometheus"),
    "fulgurite.callbacks.PrometheusMetrics": (("prometheus_client",), "prometheus"),
    **{name: ((name,), name) for name in ("wandb", "mlflow", "aim", "tensorboard")},
}

# What the annotations of these packages exclude, their classes refuse. Other annotations may be wrong: their classes
# run with a value that does not fit, so it is only a warning.
STRICT = ("lightning", "torch", "fulgurite")
# Arguments of the shipped classes in src/, whose annotations are right.
SHIPPED = {
    "src.models.classifier": (
        "net", "num_classes", "optimizer", "scheduler", "scheduler_interval", "scheduler_frequency",
        "scheduler_monitor", "compile",
    ),
    "src.models.nets.dense": ("input_size", "lin1_size", "lin2_size", "lin3_size", "output_size"),
    "src.models.nets.convnet": ("in_channels", "channels", "hidden_size", "image_size", "output_size"),
    "src.data.mnist": (
        "name", "data_dir", "local_dirs", "num_classes", "val_size", "test_size", "split_seed", "fold", "num_folds",
        "batch_size", "num_workers", "pin_memory", "augment",
    ),
    "src.data.augment": ("pixels",),
}  # fmt: skip

_FEW = 6  # choices that a line lists
# Well-known numbers of these classes: (smallest meaningful value, in words).
RANGES: dict[str, tuple[float, str]] = {
    **dict.fromkeys(("lr", "weight_decay", "momentum", "min_delta", "dropout"), (0, "0 or more")),
    **dict.fromkeys(("min_epochs", "min_steps", "patience", "num_workers", "log_every_n_steps"), (0, "0 or more")),
    **dict.fromkeys(("gradient_clip_val", "refresh_rate", "val_size", "test_size", "every_n_epochs"), (0, "0 or more")),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), (0, "0 or more")),
    **dict.fromkeys(("batch_size", "num_nodes", "num_classes", "accumulate_grad_batches"), (1, "1 or more")),
    "val_check_interval": (1e-9, "above 0"),
    **dict.fromkeys(("check_val_every_n_epoch", "scheduler_frequency"), (1, "1 or more")),
    **dict.fromkeys(("max_epochs", "max_steps"), (-1, "-1 (no limit) or more")),
    **dict.fromkeys(("save_top_k", "max_depth"), (-1, "-1 (all) or more")),
}  # fmt: skip

# modules of Python itself that a config names; a typo means none of the others
STDLIB = {"builtins", "collections", "datetime", "decimal", "fractions", "functools", "math", "pathlib", "random"}

# classes of version 0.1.0 that are in the library now
MOVED = {
    "src.callbacks.last_checkpoint": "fulgurite.callbacks.LastCheckpoint",
    "src.callbacks.nan_guard": "fulgurite.callbacks.NaNGuard",
    "src.callbacks.oom_backoff": "fulgurite.callbacks.OOMBackoff",
    "src.callbacks.terminal.progress_bar": "fulgurite.callbacks.progress_bar",
    "src.callbacks.terminal.model_summary": "fulgurite.callbacks.model_summary",
}


def check_targets(view: ConfigView) -> Iterator[Finding]:
    """Yield the wrong targets of a config, and their wrong arguments."""
    yield from _check_below(view, view.written, "", closed=True)


def _check_below(view: ConfigView, written: Any, key: str, *, closed: bool) -> Iterator[Finding]:
    # closed: nothing adds arguments later. Below `_recursive_: false`, the class that receives the config may.
    if isinstance(written, dict):
        if "_target_" in written:
            yield from _check_target(view, written, key, closed=closed)
            closed = closed and written.get("_recursive_", True) is not False
        for name, child in written.items():
            yield from _check_below(view, child, join(key, str(name)), closed=closed)
    elif isinstance(written, list):
        for position, child in enumerate(written):
            yield from _check_below(view, child, join(key, position), closed=closed)


def _check_target(view: ConfigView, written: dict[str, Any], key: str, *, closed: bool) -> Iterator[Finding]:
    target = view.resolve(written["_target_"], f"{key}._target_")
    if target is UNKNOWN:
        return
    if not isinstance(target, str) or not target:
        yield Finding(f"{key}._target_", "must be the dotted path of a class or a function", written["_target_"])
        return
    if rule := _unusable(target):
        yield Finding(key, rule)
        return
    signature = read_signature(target)
    if rule := _broken_import(target) or _refused(view, target):
        yield Finding(f"{key}._target_", rule, target)
    elif isinstance(signature, NotFound):
        moved = next((new for old, new in MOVED.items() if is_below(target, [old])), None)
        rule = f"moved. Use {moved}" if moved else _explain_not_found(signature, target)
        yield Finding(f"{key}._target_", rule, target)
    elif isinstance(signature, Signature):
        yield from _check_names(written, key, signature, closed=closed)
        for name, parameter in signature.parameters.items():
            path = join(key, name)
            if name in written and not parameter.positional_only:
                yield from _check_value(view.resolve(written[name], path), written[name], path, parameter, target)


def _broken_import(target: str) -> str | None:
    """Return the line of the user's code that fails when a target is imported."""
    found = find_broken_line(target)
    return None if found is None else f"{shown_path(found.file)}:{found.number}: {found.reason}"


def _refused(view: ConfigView, target: str) -> str | None:
    """Return why configs may not call a target, as far as its source and the standard library show it."""
    extras = view.written.get("extras")
    more = view.resolve(extras.get("allowed_targets"), "extras.allowed_targets") if isinstance(extras, dict) else None
    allowed = [str(name) for name in more] if isinstance(more, list) else []
    if target in LOOKUPS:
        return None
    if target.partition(".")[0] in sys.stdlib_module_names and not _runs_source(target):
        return problem_of(target, allowed, "_target_") or None
    found = locate(target)
    if not isinstance(found, tuple) or isinstance(found[0].node, ast.expr):
        return rejection_of(target, allowed) or None
    return rejection_of(f"{found[0].module.name}.{found[0].node.name}", allowed) or None


def _runs_source(target: str) -> bool:
    """Return whether an import of a target would run the source of a module, e.g. of one that opens a browser."""
    parts = target.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    found = [find_module(name) for name in names if name not in sys.modules]
    return any(module is not None and module.file is not None for module in found)


def _unusable(target: str) -> str | None:
    """Return why a target cannot be used on this machine at all."""
    if is_below(target, ["pytorch_lightning"]):
        return f"this library works with lightning. Use lightning.pytorch{target.removeprefix('pytorch_lightning')}"
    if is_below(target, RETIRED):
        return "Neptune has been sunset and Lightning no longer logs to it. Choose another of configs/logger"
    for name, (modules, extra) in OPTIONAL.items():
        if is_below(_short_path(target), [name]) and not any(is_installed(module) for module in modules):
            last = target.rpartition(".")[2]
            return f'{last} needs the package {modules[0]}, which is not installed; pip install -e ".[{extra}]"'
    return None


def _short_path(target: str) -> str:
    """Return the public path of one of Lightning's loggers: without the module that defines it."""
    package, _, name = target.rpartition(".")
    is_logger = package.startswith("lightning.pytorch.loggers.") and package.count(".") == 3
    return f"lightning.pytorch.loggers.{name}" if is_logger else target


@cache
def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it; a folder of that name does not count."""
    module = find_module(package)
    return module is not None and (module.file is not None or module.opaque)


def _explain_not_found(found: NotFound, target: str) -> str:
    if (right := _in_project(target)) is not None:
        return f"a class of the project is named from its root. Write {right}"
    if not found.holder:
        import pkgutil

        packages = {module.name for module in pkgutil.iter_modules()} | {"src", "fulgurite"}
        near = did_you_mean(found.missing, sorted(packages - sys.stdlib_module_names | STDLIB))
        return f"there is no package {found.missing!r}{near or '. Install it or correct the name'}"
    if not found.missing:
        return f"{found.holder} is a module. Name a class or a function in it"
    kind = "module" if found.is_module else "class or function"
    near = suggest_or_list(found.missing, [name for name in found.valid_names if name != "*"], "It has")
    return f"{found.holder} has no {kind} {found.missing!r}{near}"


def _in_project(target: str) -> str | None:
    """Return the full name of a class in `src` whose target lacks its first folders; None unless one is found."""
    folders = sorted({file.parent for file in (project_root() / "src").rglob("*.py")})
    prefixes = [folder.relative_to(project_root()).as_posix().replace("/", ".") for folder in folders]
    names = [f"{prefix}.{target}" for prefix in prefixes]
    found = [name for name in names if isinstance(read_signature(name), Signature)]
    return found[0] if len(found) == 1 else None


def _check_names(written: dict[str, Any], key: str, signature: Signature, *, closed: bool) -> Iterator[Finding]:
    target = signature.target.rpartition(".")[2]
    takes = [name for name, parameter in signature.parameters.items() if not parameter.positional_only]
    for name, value in written.items():
        if name not in takes and name not in SPECIAL_KEYS and not signature.takes_any:
            near = did_you_mean(str(name), [*takes, *SPECIAL_KEYS]) or suggest_or_list(str(name), takes)
            rule = f"{target} takes no argument {str(name)!r}{near or '. Remove it.'}"
            yield Finding(join(key, str(name)), rule, value)
    if not closed or written.get("_partial_"):
        return
    given = written.get("_args_") or []
    filled = set(list(signature.parameters)[: len(given)]) if isinstance(given, list) else set(signature.parameters)
    for name, parameter in signature.parameters.items():
        if parameter.required and name not in written and name not in filled:
            is_late = name in {"params", "optimizer"}
            remedy = "Add _partial_: true, the model adds it" if is_late else f"Add {join(key, name)}"
            yield Finding(key, f"{target} needs {name!r}. {remedy}")


def _check_value(value: Any, written: Any, key: str, parameter: Parameter, target: str) -> Iterator[Finding]:
    if value is UNKNOWN or (value is None and parameter.default_is_none):
        return
    name, is_strict = target.rpartition(".")[2], _is_strict(parameter)
    if is_strict and isinstance(value, float) and math.isnan(value):
        yield Finding(key, "not a number. Give a number", written)
    elif rejects(value, parameter.annotation, parameter.module):
        if is_strict and not _is_whole(value, parameter):
            yield Finding(key, _explain_value(value, written, name, parameter), written)
        elif not contradicts_default(parameter.annotation, parameter.module, parameter.default):
            rule = f"{_explain_value(value, written, name, parameter)}. The value is passed as it is".replace("?.", "?")
            yield Finding(key, rule, written, is_warning=True)
    elif isinstance(value, dict) and _wants_target(value, parameter, is_strict=is_strict):
        rule = _explain_value(value, written, name, parameter)
        yield Finding(key, rule if is_strict else f"{rule}, if the class does not", is_warning=not is_strict)
    elif is_strict and (rule := explain_known(target, parameter.name, value)):
        yield Finding(key, rule, written)
    elif is_strict:
        yield from check_range(value, written, key)


def _wants_target(value: dict[str, Any], parameter: Parameter, *, is_strict: bool) -> bool:
    """Return whether a dictionary stands for an object; other classes than those of a component may read it."""
    if match(value, parameter.annotation, parameter.module) is not Match.OBJECT:
        return False
    wanted = describe(parameter.annotation, parameter.module)
    return is_strict or any(f"({kind})" in wanted for kind in ("Optimizer", "LRScheduler", "Module"))


def _is_strict(parameter: Parameter) -> bool:
    """Return whether a class certainly refuses what the annotation of a parameter excludes."""
    return is_below(parameter.module.name, STRICT) or parameter.name in SHIPPED.get(parameter.module.name, ())


def _is_whole(value: Any, parameter: Parameter) -> bool:
    """Return whether a value such as 1e3, which YAML reads as a float, equals a whole number that fits."""
    is_float = isinstance(value, float) and value.is_integer()
    return is_float and match(int(value), parameter.annotation, parameter.module) is Match.YES


def _explain_value(value: Any, written: Any, name: str, parameter: Parameter) -> str:
    wanted = describe(parameter.annotation, parameter.module)
    if isinstance(value, str):
        options = choices(parameter.annotation, parameter.module)
        if near := did_you_mean(value, options):
            return f"{f'{name} wants {wanted}' if len(options) <= _FEW else f'not a value of {name}'}{near}"
        if isinstance(written, str) and written.startswith("${oc.env:"):
            return f"{name} wants {wanted}, and an environment variable is text. Write ${{oc.decode:{written}}}"
        if value == "None":
            return f"{name} wants {wanted}, and None is text in YAML. Write null"
    if isinstance(value, dict):
        return f"{name} wants {wanted}, and this block has no _target_. Add one"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    quotes = ". Put it in quotes" if is_number and "text" in wanted and "number" not in wanted else ""
    return f"{name} wants {wanted}{quotes or ('. Set its _target_' if wanted.startswith('an object') else '')}"


def check_range(value: Any, written: Any, key: str) -> Iterator[Finding]:
    """Yield a finding for a well-known number that is meaninglessly small."""
    limit = RANGES.get(key.rpartition(".")[2])
    if limit is not None and isinstance(value, (int, float)) and not isinstance(value, bool) and value < limit[0]:
        yield Finding(key, f"must be {limit[1]}", written)
