"""Command line of the library: `python -m fulgurite runs | report | doctor | explain | ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from fulgurite import __version__
from fulgurite.core.cli_parser import PROGRAM
from fulgurite.core.errors import EXIT_INTERRUPTED, EXIT_USER, FulguriteError, did_you_mean
from fulgurite.core.project import find_project

# command: the module whose `main(argv)` returns the exit code, and what it is for
COMMANDS = {
    "live": ("fulgurite.live.document.live_cli", "change a run while it trains"),
    "runs": ("fulgurite.reporting.runs_cli", "list runs and sweeps as a table, JSON, CSV or Markdown"),
    "report": ("fulgurite.reporting.report_cli", "analyse a sweep: report.html and best.yaml"),
    "doctor": ("fulgurite.doctor.cli", "check and measure a group of processes before training on it"),
    "explain": ("fulgurite.explain.explain_cli", "where the value of a config key comes from and who reads it"),
    "schema": ("fulgurite.explain.schema_cli", "write JSON schemas, with which editors complete and check the configs"),
    "prove-resume": ("fulgurite.exact_resume.proof.cli", "kill and resume an experiment, compare bit by bit"),
}


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code.

    Args:
        argv: The command and its arguments, without the program's name.
    """
    if argv[:1] == ["help"] and len(argv) > 1:
        argv = [argv[1], "--help"]
    if not argv or argv[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_usage())
        return 0 if argv else EXIT_USER
    if argv[0] == "--version":
        sys.stdout.write(f"fulgurite {__version__}\n")
        return 0
    command, *arguments = argv
    if command not in COMMANDS:
        near = did_you_mean(command, COMMANDS)
        sys.stderr.write(f"error: {command}: is not a command{near or '; choose from ' + ', '.join(COMMANDS)}\n")
        return EXIT_USER
    try:
        root = find_project()
    except FulguriteError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if root is not None and str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return int(import_module(COMMANDS[command][0]).main(arguments))
    except SystemExit as stop:  # argparse after --help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _usage() -> str:
    lines = (f"  {name:14}{what}\n" for name, (_, what) in COMMANDS.items())
    return f"usage: {PROGRAM} COMMAND [--help] ...\n\n{''.join(lines)}"


def console() -> None:
    """Run the console script `fulgurite`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    console()
