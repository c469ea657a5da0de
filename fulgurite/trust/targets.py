"""Which objects a config may name: a foreign one by the place of the `_target_` and the type of the object found.

A short deny-list holds for the configs of the project, so that a pasted snippet does not run commands or pickles. It is
no defence: they may name any other object that is installed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from fulgurite.trust.walk import last_part, leaves, look_up

_TYPES = "bool complex dict float frozenset int list set slice str tuple"
# A config of the project may name all but these, which run commands or code of a pasted snippet, or unpickle.
REFUSED = (
    "os", "posix", "nt", "subprocess", "pty", "builtins", "io", "_io", "importlib", "runpy", "code", "shutil", "pickle",
    "_pickle", "marshal", "shelve", "ctypes", "_ctypes", "torch.hub", "torch.package", "torch.serialization",
    "torch.jit._serialization", "torch.utils.cpp_extension", "cloudpickle", "dill", "hydra", "fulgurite",
)  # fmt: skip
ALLOWED = (  # below what REFUSED names
    "fulgurite.callbacks", "fulgurite.live.callback", "fulgurite.exact_resume.proof.probe",
    *(f"builtins.{name}" for name in _TYPES.split()),
)  # fmt: skip
LOOKUPS = ("hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.get_object")  # of what `path` names
# Packages whose import runs nothing of an attacker, and the modules of them whose classes may be named. Left out are
# classes that read files, open connections or unpickle: datasets to download, loggers with a server, checkpoint IO.
PACKAGES = ("src", "torch", "lightning", "torchvision", "torchmetrics", "fulgurite.callbacks")
MODULES = (
    "src", "fulgurite.callbacks", "torch.nn.modules", "torch.optim", "torch.utils.data.dataset",
    "torch.utils.data.sampler", "torch.utils.data.distributed", "lightning.pytorch.callbacks",
    "lightning.pytorch.core", "lightning.pytorch.loggers.csv_logs", "lightning.pytorch.loggers.tensorboard",
    "lightning.pytorch.plugins.precision", "lightning.pytorch.plugins.layer_sync", "lightning.pytorch.profilers",
    "lightning.pytorch.strategies", "lightning.pytorch.trainer.trainer", "torchvision.transforms",
    "torchvision.models", "torchmetrics.aggregation", "torchmetrics.classification", "torchmetrics.clustering",
    "torchmetrics.nominal", "torchmetrics.regression", "torchmetrics.retrieval", "torchmetrics.segmentation",
    "torchmetrics.wrappers", "torchmetrics.collections", "torchmetrics.image.psnr", "torchmetrics.image.ssim",
    "torchmetrics.text.bleu", "torchmetrics.text.cer", "torchmetrics.text.perplexity", "torchmetrics.text.wer",
)  # fmt: skip
# Functions, and types of the standard library: none has an effect beside its result.
_OF_PACKAGES = {
    "torch.nn.functional": "relu gelu silu elu leaky_relu softmax log_softmax sigmoid tanh softplus cross_entropy "
    "mse_loss l1_loss nll_loss binary_cross_entropy_with_logits huber_loss",
    "torch": "relu sigmoid tanh",
    "builtins": _TYPES,
    "collections": "OrderedDict",
    "datetime": "timedelta",
    "fulgurite.callbacks": "progress_bar model_summary",
}
FUNCTIONS = frozenset(f"{package}.{name}" for package, names in _OF_PACKAGES.items() for name in names.split())

_L, _T = "lightning.pytorch.", "torch."
_PRECISION = "plugins.precision.precision.Precision"
_PLUGINS = (f"{_L}{_PRECISION}", f"lightning.fabric.{_PRECISION}", f"{_L}plugins.layer_sync.LayerSync")
_OPTIMIZER, _SCHEDULER = f"{_T}optim.optimizer.Optimizer", f"{_T}optim.lr_scheduler.LRScheduler"
_DATA_PARTS = (f"{_T}utils.data.dataset.Dataset", f"{_T}utils.data.sampler.Sampler")
# metrics and most transforms are modules
_PARTS = (f"{_T}nn.modules.module.Module", _OPTIMIZER, _SCHEDULER, *_DATA_PARTS)
# Modules whose plain classes are transforms: torchvision's first version of them, and those of the project's data.
TRANSFORMS = ("torchvision.transforms", "src.data")
# Pattern of the key of a dictionary with a target -> the classes of which one must be a base of the object.
PLACES: dict[str, tuple[str, ...]] = {
    r"model": (f"{_L}core.module.LightningModule",),
    r"data": (f"{_L}core.datamodule.LightningDataModule",),
    r"trainer": (f"{_L}trainer.trainer.Trainer",),
    r"callbacks\.[^.\[]+|trainer\.callbacks(\[\d+\])?": (f"{_L}callbacks.callback.Callback",),
    r"logger\.[^.\[]+|trainer\.logger(\[\d+\])?": (f"{_L}loggers.logger.Logger",),
    r"trainer\.strategy": (f"{_L}strategies.strategy.Strategy",),
    r"trainer\.plugins(\[\d+\])?": _PLUGINS,
    r"trainer\.profiler": (f"{_L}profilers.profiler.Profiler",),
    r"model\.optimizer": (_OPTIMIZER,),
    r"model\.scheduler": (_SCHEDULER,),
    r"(model|data|trainer|callbacks|logger)\b.*": _PARTS,
}
ELSEWHERE = tuple(dict.fromkeys(kind for kinds in PLACES.values() for kind in kinds))  # interpolations may refer to it
REMEDY = "Name a class of src, or one of torch or Lightning that only computes"


def name_problem(target: Any) -> str:
    """Return why a foreign config may not write a target, before anything is imported; else an empty string."""
    if not isinstance(target, str):
        return "is not the dotted path of a class"
    if target in FUNCTIONS or target in LOOKUPS:
        return ""
    if not is_within(target, PACKAGES):
        return f"is not of {', '.join(PACKAGES)}. {REMEDY}"
    if any(part.startswith("_") or not part.isidentifier() for part in target.split(".")):
        return f"has a private part. {REMEDY}"
    return ""


def object_problem(target: str, found: Any, place: str) -> str:
    """Return why a foreign config may not call an object, found at a target, in the dictionary at a key, or ''."""
    if problem := name_problem(target):
        return problem
    kinds = next((kinds for pattern, kinds in PLACES.items() if re.fullmatch(pattern, place)), ELSEWHERE)
    if target in FUNCTIONS:
        return ""
    if not inspect.isclass(found):
        return f"is not a class. {REMEDY}"
    owner = found.__module__
    if found.__qualname__ != target.rpartition(".")[2] or owner.partition(".")[0] != target.partition(".")[0]:
        return f"is another name of {owner}.{found.__qualname__}. {REMEDY}"
    if not is_within(owner, MODULES):
        return f"is a class of {owner}, which may read files or reach the network. {REMEDY}"
    names = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
    is_transform = place.startswith("data.") and is_within(owner, TRANSFORMS)
    if names.isdisjoint(kinds) and not is_transform:
        wanted = ", ".join(dict.fromkeys(kind.rpartition(".")[2] for kind in kinds))
        return f"has none of the types that may stand here: {wanted}. {REMEDY}"
    return ""


def problems(content: Any) -> list[tuple[str, Any, str]]:
    """Return key, value and problem of each target that a foreign config may not write."""
    written = [(key, value) for key, value in leaves(content) if is_target(content, key)]
    # an interpolation is judged once the config is composed
    plain = [(key, value) for key, value in written if value not in (None, "???") and "${" not in str(value)]
    return [(key, value, problem) for key, value in plain if (problem := name_problem(value))]


def is_target(content: Any, key: str) -> bool:
    """Return whether a key names an object: `_target_`, or `path` of a lookup."""
    name = last_part(key)
    return name == "_target_" or (name == "path" and look_up(content, f"{key[:-5]}._target_") in LOOKUPS)


def rejection_of(name: str, more: Sequence[str]) -> str:
    """Return why configs may not call the object of a name, unless the project allows `more`; else an empty string."""
    if is_within(name, REFUSED) and not is_within(name, (*ALLOWED, *more)):
        return (
            f"is {name}, which configs may not call: it could run code that is not installed. "
            "Name a class of src or of an installed package, or call it from a function in src"
        )
    return ""


def is_within(name: str, roots: Sequence[str]) -> bool:
    """Return whether a dotted name is one of `roots` or below one; a root that ends with `_` is a prefix."""
    return any(name == root or name.startswith(root if root.endswith("_") else f"{root}.") for root in roots)
