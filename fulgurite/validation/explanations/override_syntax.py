"""Explain why Hydra's grammar cannot read an override: what is wrong, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException

from fulgurite.core.errors import suggest_or_list
from fulgurite.core.redact import is_secret_key

_CLOSES = {"[": "]", "{": "}", "(": ")"}
_KEY = re.compile(r"(~|\+{0,2})[A-Za-z_$][\w$./@-]*", re.ASCII)  # or a group with the package that it goes to
_NO_PAIR = re.compile(r"\{\s*[^{}:]+\}|\{[^{}:]+,|,[^{}\[\]:,]+\}|:\s*[},]")
_SPECIAL = re.compile(r"[^\w\s/\\+.$%*@?|:,\[\]{}()'\"-]|[^\x00-\x7f]")  # Hydra's grammar reads these in quotes only
_EVALUATION = re.compile(r"while evaluating '.*?': (.*)")  # Hydra's error about a function
_UNKNOWN = re.compile(r"Unknown function '(.*?)'\s+Available: (.*)")
_IN_QUOTES = "cannot be read. Put a value with special characters in quotes"
_NEXT = 12  # characters that show a place


def read_override(text: str) -> Override | str:
    """Return an override as Hydra parses it, or why it cannot."""
    if not text or text.strip("+~").startswith("=") or not text.strip("+~"):
        return "has no key. Write <key>=<value>"
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except OverrideParseException as error:
        return _explain(text, str(error))
    except HydraException as error:
        return str(error).splitlines()[0]


def join_divided(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each override, and why it is wrong if a space around `=` divides it."""
    waiting = list(texts)
    while waiting:
        parts = [waiting.pop(0)]
        while waiting and _is_divided(parts[-1], waiting[0]):
            parts.append(waiting.pop(0))
        joined, first = "".join(parts), parts[0]
        key, equals, _ = first.partition("=")
        if len(parts) > 1 or (equals and key.endswith(" ")):
            yield " ".join(parts), f"a space stands around =. Write {joined.replace(' =', '=', 1)}"
        else:
            yield first, ""


def _is_divided(one: str, other: str) -> bool:
    """Return whether two arguments are the parts of one override, `<key>` and `=<value>` or `<key>=` and `<value>`."""
    is_key = "=" not in one and other.startswith("=")
    return is_key or (one.endswith("=") and "=" not in other and not other.startswith("~"))


def _explain(text: str, message: str) -> str:
    key, equals, value = text.partition("=")
    name = _KEY.match(key)
    if not equals:
        is_key = name is not None and name.end() == len(key)
        remedy = f"has no value. Write {text}=<value>, or ~{text} to remove it"
        return remedy if is_key else "is no <key>=<value>. Put a value with spaces in quotes: 'key=\"a b\"'"
    if name is None or name.end() < len(key):
        wrong = key[name.end() :] if name else key
        return f"a key cannot contain {wrong[0]!r}. Write <key>=<value>, with dots between the names of the key"
    if is_secret_key(key):
        return _IN_QUOTES
    if value.startswith("="):
        return f"has two equals signs. Write {key}={value.lstrip('=')}"
    return _explain_call(message) or _explain_value(value) or _ask_for_quotes(key, value)


def _explain_call(message: str) -> str:
    """Return what Hydra rejects in a function such as choice(); empty for another error."""
    if unknown := _UNKNOWN.search(message):
        return f"there is no function {unknown[1]!r}{suggest_or_list(unknown[1], unknown[2].split(','), 'There is')}"
    failed = _EVALUATION.search(message)
    return f"{failed[1]}. Correct the arguments" if failed else ""


def _ask_for_quotes(key: str, value: str) -> str:
    if _NO_PAIR.search(value):
        return "a dictionary has pairs: {<name>: <value>}. Write them"
    example = "" if re.search(r"""["'\[{]""", value) else f": '{key}=\"{value}\"'"
    found = _SPECIAL.search(value)
    rule = _IN_QUOTES.replace("be read", f"contain {found[0]!r}{_after(value, found.start())}") if found else _IN_QUOTES
    return f"{rule}{example}"


def _explain_value(value: str) -> str:
    """Return why a value is unreadable: brackets, quotes and commas that do not match; empty for another reason."""
    opened: list[int] = []
    position = 0
    while position < len(value):
        sign = value[position]
        if sign == "\\":
            position += 1
        elif sign in "\"'":
            end = re.compile(rf"(?<!\\)(\\\\)*{sign}").search(value, position + 1)
            if end is None:
                return f"the quote {_at(value, position)} is not closed. Add {sign} at its end"
            position = end.end() - 1
        elif sign in _CLOSES:
            opened.append(position)
        elif sign in _CLOSES.values():
            if not opened or _CLOSES[value[opened[-1]]] != sign:
                return f"the bracket {sign}{_after(value, position)} closes none. Remove it"
            opened.pop()
        elif sign == "," and re.match(r"\s*(,|[\])}]|$)", value[position + 1 :]):
            return f"no value follows the comma{_after(value, position)}. Remove the comma, or add a value"
        position += 1
    if opened:
        return f"the bracket {_at(value, opened[-1])} is not closed. Add {_CLOSES[value[opened[-1]]]} at its end"
    return ""


def _at(value: str, position: int) -> str:
    """Return a character and the start of what follows it."""
    rest = value[position + 1 :]
    return f"{value[position]} before {rest[:_NEXT]!r}" if rest else f"{value[position]} at the end"


def _after(value: str, position: int) -> str:
    """Return which text stands before a position; nothing at the start."""
    return f" after {value[:position]!r}" if position else ""
