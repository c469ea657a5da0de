"""Keep secrets out of everything that a process writes: known values, values of secret keys, passwords in URLs.

A value is known once the config holds it under a secret key, or once `oc.env` or `secret` returned it. A value that
`oc.env` returned from a variable with an ordinary name may be a word such as `cifar10`: it stays in the files that a
resume reads, and is hidden everywhere else.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from fulgurite.core.formatting import pattern_as_written

MASK = "***"
_FROM_ENVIRONMENT = re.compile(r"\$\{\s*(oc\.env|secret)\s*:\s*(?:env\s*,\s*)?(?!PROJECT_ROOT\b)([^,}\s]*)")
MIN_LENGTH = 6  # characters of a value that is hidden wherever it appears; a shorter one would hide ordinary words
_SECRET_NAME = re.compile(
    r"(^|[_-])(api_?)?(key|token|secret|password|passwd|pass|credentials?|auth)s?$", re.IGNORECASE
)
_COUNT_NAME = re.compile(r"(^|[_-])(max|min|num|n|train|val|test)[_-]([a-z]+[_-])?(tokens|keys)$", re.IGNORECASE)
# names that hold nothing but a secret: a sort_key and a pad_token are ordinary values
_CERTAIN_NAME = re.compile(
    r"(^|[_-])(secret|password|passwd|passphrase|passcode|authorization|credential"
    r"|(api|access|secret|private|auth|service|account|storage|encryption|signing|license)[_-]?key"
    r"|(api|access|auth|bearer|refresh|session|bot|secret|hf|hub|wandb|github|gitlab|slack|neptune|comet)[_-]?token)s?$",
    re.IGNORECASE,
)
_RANDOM = re.compile(
    r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[\w+/=-]{16,}|[0-9a-f]{32,}|(hf_|sk-|gh[pousr]_|glpat-|xox[a-z]-|AKIA)[\w-]{8,}"
)
# in a URL: the password, which may hold the signs that end it, a token in place of a user, and an argument
_IN_URL = re.compile(
    r"(?<=://)[^\s:/@]*:(?:(?P<password>[^\s/]+)|(?!\d{1,5}/)(?P<long_password>[^\s@]+))@"
    rf"|(?<=://)(?P<user>(?:{_RANDOM.pattern})(?=@))"
    r"|[?&;](?i:\w+[_-])?(?i:api_?key|token|secret|password|passwd|pwd|signature)=(?P<argument>[^\s&;#\"']+)",
)
# a quoted value anywhere, or a bare one of at least eight characters that ends its line
_SECRET_VALUE = re.compile(
    r"""((?:key|token|secret|password|passwd|credential|auth)s?["']?[ \t]*[:=][ \t]*)"""
    r"""("[^"\n]+"|'[^'\n]+'|[^\s"'$({\[][^\s"'$(){\[]{7,}(?=[ \t]*$))""",
    re.IGNORECASE | re.MULTILINE,
)
# a value of a dictionary that is written on a command line
_NESTED = re.compile(r"""(?<!\$\{)(?<![\w-])([\w-]+)["']?\s*:\s*("[^"]*"|'[^']*'|[^\s"'$,{}\[\]][^,{}\[\]]*)""")
# variables that say where and on what a process runs
_PUBLIC_VARIABLE = re.compile(
    r"PROJECT_ROOT|HOME|USER|LOGNAME|PWD|PATH|SHELL|LANG|TERM|TMPDIR|HOSTNAME|SCRATCH|WORK|RANK|WORLD_SIZE"
    r"|(LOCAL|GROUP|MASTER|SLURM|PBS|SGE|LSB|OMPI|PMI|CUDA|NVIDIA|OMP|MKL|NCCL|GLOO|XDG)_\w+"
)


class _KnownSecrets:
    """The values that this process hides; `pattern` finds all, `certain` those that no ordinary word equals."""

    def __init__(self) -> None:
        self.values: dict[str, bool] = {}
        self.pattern: re.Pattern[str] | None = None
        self.certain: re.Pattern[str] | None = None
        self.on_new: list[Callable[[], None]] = []

    def add(self, value: str, *, certain: bool) -> None:
        parts = {part.strip() for part in (value, *value.splitlines()) if len(part.strip()) >= MIN_LENGTH}
        new = [part for part in parts if certain > self.values.get(part, -1)]
        if not new or MASK in value:
            return
        self.values.update(dict.fromkeys(new, certain))
        self.pattern, self.certain = _compiled(self.values), _compiled([v for v, sure in self.values.items() if sure])
        for notify in self.on_new:
            notify()

    def __reduce__(self) -> tuple[Any, ...]:
        return _learn, (self.values, self.on_new)  # a spawned rank composes no config


known_secrets = _KnownSecrets()


def _learn(values: Mapping[str, bool], on_new: list[Callable[[], None]]) -> _KnownSecrets:
    known_secrets.on_new += [notify for notify in on_new if notify not in known_secrets.on_new]
    for value, certain in values.items():
        known_secrets.add(value, certain=certain)
    return known_secrets


def _compiled(values: Iterable[str]) -> re.Pattern[str] | None:
    forms = [pattern_as_written(value) for value in sorted(values, key=len, reverse=True)]
    return re.compile("|".join(forms)) if forms else None


def register_secret(value: object, *, certain: bool = True) -> None:
    """Hide a value from now on in everything that this process writes, unless it is short.

    Args:
        value: The secret; its lines are hidden too.
        certain: Whether to hide it in the files that a resume reads as well.

    Example:
        >>> register_secret(requests.get(vault).text)
    """
    known_secrets.add(str(value), certain=certain)


def register_variable(name: str, value: str) -> None:
    """Hide the value of an environment variable, unless it is a path, a plain word or of the process."""
    certain = is_secret_key(name)
    is_number = re.fullmatch(r"[-+.\deE]+", value) is not None
    first = re.match(r"[/~]?[^/]+(?=/)", value)  # a folder in it may be made later
    is_path = first is not None and os.path.exists(os.path.expanduser(first[0]))  # noqa: PTH110, PTH111 - odd text
    is_word = re.fullmatch(r"[a-z]{1,12}|[A-Z]{1,12}", value) is not None  # it would hide parts of other words
    if certain or not (_PUBLIC_VARIABLE.fullmatch(name) or is_number or is_path or is_word):
        register_secret(value, certain=certain)


def hide_secrets(text: str, *, certain: bool = False) -> str:
    """Return a text with `***` for known values; with `certain` only for those that no ordinary word equals."""
    pattern = known_secrets.certain if certain else known_secrets.pattern
    return text if pattern is None else pattern.sub(MASK, text)


def without_secrets(value: Any, key: str = "", *, certain: bool = False) -> Any:
    """Return nested plain values with `***` for known values, for those of secret keys and passwords in URLs.

    Interpolations stay. What holds no secret is returned itself.
    """
    if isinstance(value, Mapping):
        masked = {name: without_secrets(part, str(name), certain=certain) for name, part in value.items()}
        is_same = all(masked[name] is part for name, part in value.items())
        return value if is_same else masked
    if isinstance(value, (list, tuple)):
        items = [without_secrets(part, key, certain=certain) for part in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return items if isinstance(value, list) or hasattr(value, "_fields") else tuple(items)
    if isinstance(value, str):
        if holds_secret(key, value):
            return MASK
        masked_text = hide_secrets(_hide_in_urls(value), certain=certain)
        return value if masked_text == value else masked_text
    is_secret = _is_number(value) and (_CERTAIN_NAME.search(_snake(key)) or hide_secrets(str(value)) == MASK)
    return MASK if is_secret else value


def holds_secret(key: str, value: object) -> bool:
    """Return whether a literal value is a secret by the last part of its dotted key.

    `api_key` and `password` hold nothing else. A `key` or a `token` is one if it looks random.
    """
    if not isinstance(value, str) or not value or "${" in value or value in {MASK, "???"}:
        return False
    name = _snake(key.rpartition(".")[2])
    return _CERTAIN_NAME.search(name) is not None or (
        _SECRET_NAME.search(name) is not None and _RANDOM.fullmatch(value) is not None
    )


def register_config(node: Any, key: str = "") -> None:
    """Register the secrets in the plain, unresolved content of a config.

    These are literal values of secret keys, passwords in URLs, and the variables that its interpolations name.
    """
    if isinstance(node, Mapping):
        for name, child in node.items():
            if key == "params" and isinstance(child, str):  # of a sweeper: several values, as on the command line
                register_override(f"{name}={child}")
            register_config(child, str(name))
    elif isinstance(node, (list, tuple)):
        for child in node:
            register_config(child, key)
    elif isinstance(node, str):
        _register_text(node, key)
    elif _is_number(node) and _CERTAIN_NAME.search(_snake(key)):
        register_secret(node)


def _register_text(text: str, key: str) -> None:
    for resolver, name in _FROM_ENVIRONMENT.findall(text):
        if (value := os.environ.get(name)) is not None:
            register_secret(value) if resolver == "secret" else register_variable(name, value)
    if holds_secret(key, text):
        register_secret(text)
    for password in _of_urls(text):
        register_secret(password)


def register_override(override: str) -> None:
    """Register the values that an override of the command line gives a secret key, each one of a sweep too."""
    key, equals, value = override.partition("=")
    if equals and _CERTAIN_NAME.search(_snake(key.rpartition(".")[2])) and "${" not in value:
        for part in (value, *re.split(r"[,\[\](){}]|\w+(?=\()", value)):
            register_secret(part.strip().strip("'\""))
    for name, part in _NESTED.findall(value):
        if _CERTAIN_NAME.search(_snake(name)):
            register_secret(part.strip("'\""))
    for password in _of_urls(override):
        register_secret(password)


def mask_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain resolved values, with `***` for values from the environment and other secrets.

    The interpolation is replaced before anything is resolved, so a reference to it is masked too.
    """
    shown = copy.deepcopy(cfg)
    OmegaConf.set_readonly(shown, False)
    _mask(shown)
    plain = OmegaConf.to_container(shown, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in without_secrets(plain).items()}


def is_secret_key(key: str) -> bool:
    """Return whether the last part of a dotted key names a secret: `api_key`, `token`, ..."""
    name = _snake(key.rpartition(".")[2])
    is_likely = _SECRET_NAME.search(name) is not None and _COUNT_NAME.search(name) is None
    return is_likely or _CERTAIN_NAME.search(name) is not None


def mask_override(override: str, *, certain: bool = False) -> str:
    """Return an override with `***` for the value of a secret key, for known secrets and the password in a URL.

    With `certain` the value of a `sort_key` stays, and so do values that may be ordinary words.
    """
    key, equals, value = override.partition("=")
    is_secret = holds_secret(key, value.strip("'\"")) or (not certain and bool(value) and is_secret_key(key))
    if equals and is_secret:
        return f"{key}={MASK}"
    for name, part in _NESTED.findall(value) if "{" in value else ():
        if holds_secret(name, part.strip("'\"")):
            override = re.sub(rf"\b({re.escape(name)}[\"']?\s*:\s*){re.escape(part)}", rf"\1{MASK}", override)
    return hide_secrets(_hide_in_urls(override), certain=certain)


def saved_config(cfg: DictConfig | ListConfig) -> str:
    """Return a config as Hydra saves it: YAML with its interpolations, and `***` for certain secrets."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    masked: Any = _masked_overrides(plain) if isinstance(plain, list) else without_secrets(plain, certain=True)
    hydra = masked.get("hydra") if isinstance(masked, dict) else None
    if isinstance(hydra, dict) and isinstance(hydra.get("overrides"), dict):
        overrides = {part: _masked_overrides(texts or ()) for part, texts in hydra["overrides"].items()}
        job = hydra.get("job") or {}
        name = ",".join(_masked_overrides(str(job.get("override_dirname", "")).split(",")))
        masked = {**masked, "hydra": {**hydra, "overrides": overrides, "job": {**job, "override_dirname": name}}}
    return OmegaConf.to_yaml(cfg if masked == plain else OmegaConf.create(masked))


def _masked_overrides(overrides: Iterable[Any]) -> list[str]:
    return [mask_override(str(override), certain=True) for override in overrides]


def mask_text(text: str) -> str:
    """Return text of code or configs with `***` for secrets, values of secret-like names and passwords in URLs."""
    return hide_secrets(_hide_in_urls(_SECRET_VALUE.sub(rf"\1{MASK}", text)))


def _of_urls(text: str) -> Iterator[str]:
    """Yield the literal secrets in the URLs of a text."""
    for found in _IN_URL.finditer(text):
        secret = found[str(found.lastgroup)]
        if "${" not in secret and secret != MASK:
            yield secret


def _hide_in_urls(text: str) -> str:
    for secret in _of_urls(text):
        text = text.replace(f":{secret}@", f":{MASK}@").replace(f"/{secret}@", f"/{MASK}@")
        text = text.replace(f"={secret}", f"={MASK}")
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _mask(node: DictConfig | ListConfig) -> None:
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if isinstance(child, (DictConfig, ListConfig)) and not child._is_interpolation() and not child._is_none():
            if not child._is_missing():
                _mask(child)
            continue
        text = getattr(child, "_value", lambda: None)()
        if isinstance(text, str) and _FROM_ENVIRONMENT.search(text):
            node[key] = MASK
