"""Parse the text of a config by the suffix of its name: YAML, JSON, TOML, key=value."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from fulgurite.compat.interpolations import YAML_LOADER
from fulgurite.sources.reader import SourceError, need_library
from fulgurite.sources.yaml_bounds import MAX_DIGITS, check_yaml, text_of, too_long

SUFFIXES = (".yaml", ".yml", ".json", ".toml", ".env")
MAX_DEPTH = 100


def parse(data: bytes, suffix: str, place: str = "value") -> dict[str, Any]:
    """Return the content of a config; an empty one is an empty dictionary.

    Args:
        data: The text, in UTF-8.
        suffix: One of `SUFFIXES`, or the name or path that ends with it; the dot may be left out.
        place: The source and the key, for messages.

    Raises:
        SourceError: The text is not UTF-8, not of this format, or is not a dictionary of names.
    """
    kind = suffix.rpartition("/")[2].rpartition(".")[2].lower()
    if kind not in _PARSERS:
        known = ", ".join(name.removeprefix(".") for name in SUFFIXES)
        raise SourceError(place, f"the format {suffix!r} is not known", f"Use one of {known}")
    text = text_of(data, place)
    try:
        content = _PARSERS[kind](text, place)
    except RecursionError as error:
        raise SourceError(place, "is nested too deeply", "Use fewer levels") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SourceError(place, f"is a {type(content).__name__}, not keys with values", "Write `key: value`")
    plain: dict[str, Any] = _plain(content, place, 0)
    return plain


def _yaml(text: str, place: str) -> Any:
    import yaml

    check_yaml(text, place)
    try:
        return yaml.load(text, _loader())  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        raise _invalid(place, "YAML", str(getattr(error, "problem", None) or error), _line_of(error)) from error


def _line_of(error: Exception) -> int | None:
    mark = getattr(error, "problem_mark", None)
    return None if mark is None else int(mark.line) + 1


def _loader() -> Any:
    """Return a loader that reads 1e-3 as a number and refuses a key that stands twice, as OmegaConf does."""
    global _LOADER
    if _LOADER is None:
        import re

        import yaml

        class UniqueKeys(YAML_LOADER):  # type: ignore[misc,valid-type]
            def construct_mapping(self, node: Any, deep: bool = False) -> Any:
                keys = [child.value for child, _ in node.value if child.tag == "tag:yaml.org,2002:str"]
                twice = next((key for position, key in enumerate(keys) if key in keys[:position]), None)
                if twice is not None:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {twice} stands twice", node.start_mark
                    )
                return super().construct_mapping(node, deep=deep)

        number = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$")
        UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
        _LOADER = UniqueKeys
    return _LOADER


_LOADER: Any = None


def _json(text: str, place: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _invalid(place, "JSON", error.msg, error.lineno) from error
    except ValueError as error:  # of `int`
        raise too_long(place) from error


def _toml(text: str, place: str) -> Any:
    tomllib = need_library("tomllib" if sys.version_info >= (3, 11) else "tomli", "sources", place)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(place, "TOML", str(error), None) from error
    except ValueError as error:  # of `int`
        raise too_long(place) from error


def _env(text: str, place: str) -> Any:
    from io import StringIO

    from dotenv.parser import parse_stream

    found: dict[str, Any] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise _invalid(place, "key=value", "is not key=value", binding.original.line)
        if binding.key is not None:
            found[binding.key] = binding.value
    return found


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "yaml": _yaml, "yml": _yaml, "json": _json, "toml": _toml, "env": _env,
}  # fmt: skip


def _invalid(place: str, name: str, problem: str, line: int | None) -> SourceError:
    where = place if line is None else f"{place}:{line}"
    return SourceError(where, f"is not valid {name} ({' '.join(problem.split())})", "Correct it")


def _plain(value: Any, place: str, depth: int) -> Any:
    """Return a value with names as keys and without dates, which a config cannot hold."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, (str, int, float, bool))), None)
        if odd is not None:
            raise SourceError(place, f"the key {odd!r} is not a name", "Correct it")
        return {key: _plain(child, place, depth + 1) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child, place, depth + 1) for child in value]
    if isinstance(value, int) and value.bit_length() > MAX_DIGITS * 10 // 3:
        raise too_long(place)
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    return value
