"""A config and a command line as they may be seen: nothing that came out of the environment or sounds secret."""

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
ROOT_VARIABLE = "oc.env:PROJECT_ROOT"  # set by the project itself; no secret


def mask_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain resolved values, each value read from the environment shown as `***`.

    A secret is never resolved: the interpolation that would read it is replaced first, wherever it is referred to from.

    Args:
        cfg: A composed config; it is not changed.
    """
    shown = copy.deepcopy(cfg)
    OmegaConf.set_readonly(shown, False)
    _mask(shown)
    plain = OmegaConf.to_container(shown, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def is_secret_key(key: str) -> bool:
    """Tell whether the last part of a dotted key is called what secrets are called: `api_key`, `token`, ..."""
    return _SECRET_NAME.search(key.rpartition(".")[2]) is not None


def mask_override(word: str) -> str:
    """Return a word of the command line, with `***` for the value of a key that sounds secret, or a URL's password."""
    key, equals, value = word.partition("=")
    return f"{key}={MASK}" if equals and value and is_secret_key(key) else _PASSWORD.sub(rf"\1:{MASK}@", word)


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
