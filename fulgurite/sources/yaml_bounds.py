"""Limits on the size, depth and alias expansion of YAML, checked before it is parsed.

OmegaConf 2.3 copies the value of each alias: 230 bytes, 49 nodes and 12 anchors take 6 s, two more anchors 26 s.
"""

from __future__ import annotations

import yaml

from fulgurite.sources.reader import SourceError

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is faster, and some builds of PyYAML lack it
MAX_DEPTH = 100
MAX_NODES = 10_000  # with each alias replaced by its value
MAX_CONFIG_BYTES = 200_000  # composing takes 5 s


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


def check_yaml(text: str, place: str) -> None:
    """Refuse YAML that expands too far through aliases; its parser reports what is invalid.

    Raises:
        SourceError: It has too many nodes, an alias in its own anchor, or is nested too deeply.
    """
    try:
        nodes = count_nodes(text)
    except yaml.YAMLError:
        return
    except KeyError as error:
        problem = f"the alias *{error.args[0]} is inside its own anchor"
        raise SourceError(place, problem, "Write the value instead") from error
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
        if isinstance(event, yaml.AliasEvent):
            if anchor in anchors:
                raise KeyError(anchor)
            size = sizes.get(anchor, 0)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            anchor, size = (anchor, 1) if isinstance(event, yaml.ScalarEvent) else (anchors.pop(), totals.pop())
            sizes[anchor] = size
        totals[-1] += size
    return totals[0]
