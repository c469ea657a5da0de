"""Print where the value of a config key comes from and who reads it.

    python -m fulgurite explain trainer.max_epochs experiment=example
    python -m fulgurite explain experiment=example

Prints the value of each key, every file and override that set it, in the order in which they apply, and the parameter
or the dataclass that reads it. Without a key it prints what the overrides change of the defaults, with the place that
set each key. Nothing is trained, and torch is not imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fulgurite.compat.hydra import replaced_resolver
from fulgurite.config.view import leaves_of
from fulgurite.core.cli_parser import CommandParser, print_error
from fulgurite.core.errors import EXIT_DONE, FulguriteError, UserError, printable
from fulgurite.core.redact import MASK
from fulgurite.explain.composition import compose_traced
from fulgurite.explain.explanation import Difference, Explanation, Place, default_of, differences, explain, text_of
from fulgurite.validation.overrides import parse

_WIDEST = 60  # characters of a value in a table


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line, with its keys apart from its overrides."""
    parser = CommandParser("explain", __doc__)
    add = parser.add_argument
    add("words", nargs="*", metavar="key or key=value", help="keys to explain, and Hydra overrides of the run")
    add("--config-name", default="train", metavar="NAME", help="train or eval (default: train)")
    add("--json", action="store_true", help="print JSON")
    if many := next((word for word in argv if word in {"-m", "--multirun"}), None):
        raise UserError(f"{many}: explain shows one run. Leave it out, and pass the values of one job, e.g. seed=1.")
    options = parser.parse(argv)
    options.overrides = [word for word in options.words if "=" in word or word.startswith("~")]
    for override in parse(options.overrides)[0]:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: several values, and explain shows one run. Pass one of them.")
    options.keys = [word for word in options.words if word not in options.overrides]
    return options


def lines_of(one: Explanation) -> Iterator[str]:
    """Yield the lines that explain one key."""
    if not one.is_set and one.left_out:
        yield f"{one.key} is not in the config"
    elif not one.is_set:
        yield f"{one.key}: {default_of(one)}"
    elif isinstance(one.value, dict):
        yield f"{one.key}:"
        values = dict(leaves_of(one.value, one.key))
        rows = [(name, _cell(values.get(name)), place) for name, place in one.below.items()]
        yield from (f"  {line}" for line in _aligned(rows))
    else:
        yield f"{one.key}={text_of(one.value)}"
    if one.is_set and one.written != one.value and not isinstance(one.value, dict):
        yield f"  written  {text_of(one.written)}"
        yield from (f"           {line}" for line in one.sources)
    for number, row in enumerate(_aligned([_row(place) for place in one.places if not one.below])):
        yield f"  {'set by' if number == 0 else '':8} {row}"
    yield from (f"  left out {line}" for line in one.left_out)
    if one.reader is not None:
        yield f"  read by  {one.reader.line}"
    if one.referred_by:
        yield f"  {'and by' if one.reader else 'read by':8} {', '.join(one.referred_by)}"


def _row(place: Place) -> tuple[str, ...]:
    by = f"({place.chosen_by})" if place.chosen_by else ""
    return place.place, "removes it" if place.removes else _cell(place.value), by


def _table(found: Sequence[Difference]) -> Iterator[str]:
    """Yield the rows of the table of differences."""
    rows = [("key", "value", "default", "set by")]
    for one in found:
        value, default = "-" if one.is_removed else _cell(one.value), "-" if one.is_new else _cell(one.default)
        rows.append((one.key, value, default, one.place))
    yield from _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    text = text_of(value)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."


def explained(options: argparse.Namespace) -> tuple[Sequence[Any], list[str]]:
    """Return what a command line asks for, and the lines that say it."""
    traced = compose_traced(options.overrides, options.config_name)
    if options.keys:
        found = [explain(traced, key) for key in options.keys]
        return found, [line for one in found for line in lines_of(one)]
    changed = differences(traced, compose_traced([], options.config_name))
    return changed, list(_table(changed)) if changed else ["the defaults"]


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    try:
        options = parse_args(argv)
        with replaced_resolver("secret", lambda *_: MASK):  # no file is read, no server asked
            found, lines = explained(options)
    except FulguriteError as error:
        return print_error(error)
    lines = list(map(printable, lines))
    if options.json:
        lines = [json.dumps([asdict(one) for one in found], indent=2, default=str)]
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_DONE
