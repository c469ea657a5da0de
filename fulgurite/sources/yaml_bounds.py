"""Limits on the size, depth, numbers and alias expansion of YAML, checked before it is parsed.

OmegaConf 2.3 copies the value of each alias: 230 bytes, 49 nodes and 12 anchors take 6 s, two more anchors 26 s.
"""

from __future__ import annotations

import re

import yaml

from fulgurite.compat.interpolations import YAML_LOADER
from fulgurite.sources.reader import SourceError

MAX_DEPTH = 100
MAX_NODES = 10_000  # with each alias replaced by its value
MAX_CONFIG_BYTES = 200_000  # composing takes 5 s
MAX_DIGITS = 4_300  # of a whole number, as Python limits them; hexadecimal and sexagesimal ones as well
_NUMBER = re.compile(r"[-+]?(0x[0-9a-f_]+|[0-9][0-9_:]*)", re.IGNORECASE)  # a whole one
_PAGE = re.compile(r"\s*<[!?a-z]", re.IGNORECASE)
_HEADER = re.compile(r"#+\s*@")


def check_size(size: int, place: str) -> None:
    """Refuse a config that is too large to compose.

    Raises:
        SourceError: It has more than `MAX_CONFIG_BYTES`.
    """
    if size > MAX_CONFIG_BYTES:
        problem = f"has {size:,} bytes, a config may have {MAX_CONFIG_BYTES:,}"
        raise SourceError(place, problem, "Move data to another file")


def text_of(data: bytes, place: str) -> str:
    """Return the text of UTF-8 data.

    Raises:
        SourceError: It is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte {error.start} (0x{data[error.start]:02x})"
        raise SourceError(f"{place}:{line}", f"{byte} is not UTF-8", "Save the file as UTF-8") from error


def has_long_digits(text: str) -> bool:
    """Return whether a text may hold a number that is too long."""
    return any(len(found[0]) > MAX_DIGITS for found in _NUMBER.finditer(text))


def too_long(place: str) -> SourceError:
    """Return the error of a number with more than `MAX_DIGITS`."""
    return SourceError(place, f"a number has more than {MAX_DIGITS:,} digits", "Write it as text, in quotes")


def check_header(text: str, place: str) -> None:
    """Refuse comments such as `# @package` at the top that have no value, as where a file is cut off.

    Raises:
        SourceError: One is not a name and a value.
    """
    if text.startswith("\ufeff") and _HEADER.match(text[1:512].lstrip()):
        problem = "the header stands behind a byte order mark, and so is not read"
        raise SourceError(f"{place}:1", problem, "Save the file as UTF-8 without that mark")
    for number, line in enumerate(text[:512].splitlines(), start=1):
        if line.strip() and not _HEADER.match(line.strip()):
            return
        if len(line.strip(" #").split()) not in {0, 2}:
            problem = f"the header {line.strip()!r} is not a name and a value"
            raise SourceError(f"{place}:{number}", problem, "Write e.g. '# @package _global_'; is the file cut off?")


def check_yaml(text: str, place: str) -> None:
    """Refuse a web page, and YAML that expands too far through aliases; its parser reports what is invalid.

    Raises:
        SourceError: It has too many nodes, an alias in its own anchor, a number that is too long, or is nested too
            deeply.
    """
    if _PAGE.match(text):
        raise SourceError(place, "is a web page, not YAML", "Correct the address, or the login")
    try:
        nodes = count_nodes(text)
    except yaml.YAMLError:
        return
    except KeyError as error:
        problem = f"the alias *{error.args[0]} is inside its own anchor"
        raise SourceError(place, problem, "Write the value instead") from error
    except OverflowError as error:
        raise too_long(f"{place}:{error.args[0]}") from error
    except RecursionError as error:
        raise SourceError(place, "is nested too deeply", "Use fewer levels") from error
    if nodes > MAX_NODES:
        shown = f"{nodes:,}" if nodes < 10**9 else "more than 10^9"
        problem = f"its aliases expand to {shown} values, a config may have {MAX_NODES:,}"
        raise SourceError(place, problem, "Use fewer aliases")


def count_nodes(text: str) -> int:
    """Return how many nodes a document has, with every alias replaced.

    Raises:
        KeyError: An alias is inside the node that it names.
        RecursionError: The document is deeper than MAX_DEPTH.
        OverflowError: The line of a number that is too long.
    """
    sizes: dict[str, int] = {}  # by anchor
    anchors: list[str] = [""]  # of the nodes around the event
    totals = [0]  # their sizes so far
    # events, not nodes: the parser's recursion on a deep document would crash the process
    for event in yaml.parse(text, Loader=YAML_LOADER):
        anchor, size = getattr(event, "anchor", None) or "", 0
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(anchor)
            totals.append(1)
            if len(anchors) > MAX_DEPTH:
                raise RecursionError
            continue
        if isinstance(event, yaml.ScalarEvent) and _is_long_number(event):
            raise OverflowError(event.start_mark.line + 1 if event.start_mark else 1)
        if isinstance(event, yaml.AliasEvent):
            if anchor in anchors:
                raise KeyError(anchor)
            size = sizes.get(anchor, 0)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            anchor, size = (anchor, 1) if isinstance(event, yaml.ScalarEvent) else (anchors.pop(), totals.pop())
            sizes[anchor] = size
        totals[-1] += size
    return totals[0]


def _is_long_number(event: yaml.ScalarEvent) -> bool:
    is_plain = event.implicit[0]  # not in quotes
    return is_plain and len(event.value) > MAX_DIGITS and _NUMBER.fullmatch(event.value) is not None
