"""Refuse what Hydra's command line does not take, in one line instead of the usage of a program."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Sequence
from typing import NoReturn

from fulgurite.compat.hydra import get_args_parser
from fulgurite.core.errors import UserError, suggest_or_list

# Options of which Hydra takes one only, and their short forms.
_MODES = {"-m": "--multirun", "-c": "--cfg", "-r": "--run", "-i": "--info", "-sc": "--shell-completion"}


def require_options(arguments: Sequence[str]) -> None:
    """Refuse options that exclude each other, and those that Hydra rejects, in a command line with options first."""
    _refuse_several_modes(arguments)
    parser = get_args_parser()
    parser.exit_on_error = False

    def refuse(message: str) -> NoReturn:
        raise ArgumentError(None, message)

    parser.error = refuse  # type: ignore[method-assign]  # Python 3.10 exits even so, without an option that it names
    try:
        if "--version" not in arguments:  # argparse prints it and exits
            parser.parse_args(list(arguments))
    except ArgumentError as error:
        choices = {"/".join(action.option_strings): action.choices or () for action in parser._actions}
        raise UserError(_explain(error, [*map(str, choices.get(str(error.argument_name), ()))])) from None


def _explain(error: ArgumentError, choices: Sequence[str]) -> str:
    """Return one line in place of argparse's."""
    name, message = str(error.argument_name).partition("/")[0], error.message
    found = re.match(r"invalid choice: '(.*?)' \(", message)
    if found and "=" not in found[1]:
        return f"{name}={found[1]}: there is no such value{suggest_or_list(found[1], choices)}"
    if found or message.startswith("expected"):  # an override after the option is not its value
        remedy = f"It takes {', '.join(choices)}" if choices else f"Write {name}=<value>"
        return f"{name}: has no value. {remedy}"
    if found := re.match(r"ignored explicit argument '(.*)'", message):
        return f"{name}: takes no value. Remove {found[1]}"
    if found := re.match(r"ambiguous option: (\S+) could match (.*)", message):
        return f"{found[1]}: is the start of several options. Write one of {found[2]}"
    if found := re.match(r"unrecognized arguments: (.*)", message):
        return f"{found[1]}: there is no such option. Values are set without dashes: key=value"
    return message


def _refuse_several_modes(arguments: Sequence[str]) -> None:
    """Refuse options that exclude each other, such as `-m` beside `--cfg`; Hydra's error is a traceback."""
    given: dict[str, str] = {}
    for argument in arguments:
        name = argument.partition("=")[0]
        long = next((mode for mode in _MODES.values() if len(name) > len("--c") and mode.startswith(name)), name)
        mode = _MODES.get(name, long)
        if mode in _MODES.values():
            given.setdefault(mode, argument)
    if given.keys() >= {"--cfg", "--multirun"}:
        one, several = given["--cfg"], given["--multirun"]
        raise UserError(
            f"{one}: shows the config of one run, and {several} starts several. "
            f"Remove {several}, or list the jobs with --dry-run instead of {one}"
        )
    if len(given) > 1:
        first, second, *_ = given.values()
        raise UserError(f"{second}: cannot be combined with {first}. Remove one of them")
