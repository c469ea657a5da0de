"""Parse a command line, and report errors: each is one line, unknown options get a suggestion."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from fulgurite.core.errors import FulguriteError, UserError, did_you_mean, printable
from fulgurite.core.redact import hide_secrets

# as the user started it: by the console script or as a module
PROGRAM = "fulgurite" if Path("".join(sys.argv[:1])).stem == "fulgurite" else "python -m fulgurite"


class CommandParser(argparse.ArgumentParser):
    """The parser of one command of `python -m fulgurite`."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            f"{PROGRAM} {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the options and positional arguments, in any order on the command line."""
        namespace, unknown = self.parse_known_intermixed_args(list(argv))
        if unknown:
            option = unknown[0].partition("=")[0]
            known = [name.lstrip("-") for name in self._option_string_actions]
            hint = did_you_mean(option.lstrip("-"), known).replace(" '", " '--") or ". --help lists the options."
            raise UserError(f"{option}: not an option of {self.prog}{hint}")
        return namespace

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`; argparse would print its usage and exit."""
        message = re.sub(r"^argument (\S+): invalid (float|int) value: '(.*)'$", r"\1=\3: is not of type \2", message)
        raise UserError(f"{message.removeprefix('argument ')}. --help lists the options.")


def one_of(option: str, choices: Sequence[str]) -> Callable[[str], str]:
    """Return an argparse `type` that accepts one of `choices`; errors name `option`."""

    def convert(value: str) -> str:
        if value not in choices:
            raise UserError(f"{option}={value}: choose from {', '.join(choices)}{did_you_mean(value, choices)}")
        return value

    return convert


def list_of(option: str, choices: Sequence[str] | None = None) -> Callable[[str], list[str]]:
    """Return an argparse `type` for comma-separated `choices`, or for any values."""
    convert = one_of(option, choices) if choices is not None else str
    return lambda text: [convert(part) for part in text.split(",") if part]


def print_error(error: FulguriteError) -> int:
    """Write each line of an error, without secrets, to standard error, and return the exit code."""
    for line in hide_secrets(str(error)).split("\n"):
        sys.stderr.write(f"error: {printable(line)}\n")
    return error.exit_code
