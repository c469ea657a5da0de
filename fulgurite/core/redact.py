"""Mask secrets in configs and command lines: values from the environment and of secret-like keys."""

from __future__ import annotations

import copy
import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

MASK = "***"
ENVIRONMENT = "oc.env:"
_SECRET_NAME = re.compile(
    r"(^|[_-])(api_?)?(key|token|secret|password|passwd|pass|credentials?|auth)s?$", re.IGNORECASE
)
_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")  # in a URL
# a quoted value anywhere, or a bare one of at least eight characters that ends its line
_SECRET_VALUE = re.compile(
    r"""((?:key|token|secret|password|passwd|credential|auth)s?["']?[ \t]*[:=][ \t]*)"""
    r"""("[^"\n]+"|'[^'\n]+'|[^\s"'$({\[][^\s"'$(){\[]{7,}(?=[ \t]*$))""",
    re.IGNORECASE | re.MULTILINE,
)
ROOT_VARIABLE = "oc.env:PROJECT_ROOT"  # set by this library, not secret


def mask_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain resolved values, with `***` for values from the environment.

    The interpolation is replaced before anything is resolved, so a reference to it is masked too.
    """
    shown = copy.deepcopy(cfg)
    OmegaConf.set_readonly(shown, False)
    _mask(shown)
    plain = OmegaConf.to_container(shown, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def is_secret_key(key: str) -> bool:
    """Return whether the last part of a dotted key names a secret: `api_key`, `token`, ..."""
    return _SECRET_NAME.search(key.rpartition(".")[2]) is not None


def mask_override(override: str) -> str:
    """Return an override with `***` for the value of a secret key, or for the password in a URL."""
    key, equals, value = override.partition("=")
    return f"{key}={MASK}" if equals and value and is_secret_key(key) else _PASSWORD.sub(rf"\1:{MASK}@", override)


def mask_text(text: str) -> str:
    """Return text of code or configs with `***` for values of secret-like names and for passwords in URLs."""
    return _PASSWORD.sub(rf"\1:{MASK}@", _SECRET_VALUE.sub(rf"\1{MASK}", text))


def _mask(node: DictConfig | ListConfig) -> None:
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if isinstance(child, (DictConfig, ListConfig)) and not child._is_interpolation() and not child._is_none():
            if not child._is_missing():
                _mask(child)
            continue
        text = getattr(child, "_value", lambda: None)()
        if isinstance(text, str) and ENVIRONMENT in text.replace(ROOT_VARIABLE, ""):
            node[key] = MASK
