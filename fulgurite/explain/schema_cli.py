"""Write JSON schemas of the config groups, with which editors complete and check the configs while you type.

    python -m fulgurite schema

Writes one schema for each folder of `configs/`, made from the config files and the signatures of the classes that they
name, and maps the configs to them in `.vscode/settings.json` for VS Code's extension `redhat.vscode-yaml`. Run it again
after you add a class or change its arguments. Nothing is trained, and torch is not imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulgurite.core.cli_parser import CommandParser, print_error
from fulgurite.core.errors import EXIT_DONE, FulguriteError, UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.project import project_root
from fulgurite.explain.json_schema import ROOT, make_schemas

FOLDER = ".vscode/schemas"
SETTING = "yaml.schemas"


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = CommandParser("schema", __doc__)
    add = parser.add_argument
    add("--folder", type=Path, help=f"folder for the schemas (default: {FOLDER})")
    add("--no-settings", dest="settings", action="store_false", help="leave .vscode/settings.json as it is")
    return parser.parse(argv)


def write_schemas(root: Path, folder: Path) -> dict[str, str]:
    """Write the schemas of a project.

    Args:
        root: The folder that holds `configs/`.
        folder: Receives `<group>.json`.

    Returns:
        The files of each schema: its path, relative to the root if it is inside, to a glob pattern.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patterns = {}
    for group, schema in make_schemas(root / "configs").items():
        file = folder / f"{group}.json"
        write_atomic(file, json.dumps(schema, indent=1) + "\n")
        name = f"./{file.relative_to(root).as_posix()}" if file.is_relative_to(root) else file.as_uri()
        patterns[name] = "configs/*.yaml" if group == ROOT else f"configs/{group}/**/*.yaml"
    return patterns


def write_settings(file: Path, patterns: dict[str, str]) -> None:
    """Map the configs to their schemas in the settings of VS Code; other settings stay.

    Raises:
        UserError: The file is not plain JSON, or holds no dictionary.
    """
    settings: dict[str, Any] = {}
    if file.is_file():
        remedy = f"Add {json.dumps({SETTING: patterns})[1:-1]} to it yourself, and pass --no-settings."
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # comments
            raise UserError(f"{file}: is not plain JSON ({error}). {remedy}") from error
        except OSError as error:
            raise UserError(f"{file}: is not readable ({error.strerror or error}). {remedy}") from error
        if not isinstance(settings, dict):
            raise UserError(f"{file}: holds a {type(settings).__name__}, not a dictionary. Correct or remove it.")
        if not isinstance(settings.get(SETTING, {}), dict):
            kind = type(settings[SETTING]).__name__
            raise UserError(f"{file}: {SETTING} is a {kind}, not a dictionary. Correct it, or pass --no-settings.")
    schemas = {name: pattern for name, pattern in settings.get(SETTING, {}).items() if name not in patterns}
    settings[SETTING] = {**schemas, **patterns}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(settings, indent=2) + "\n")


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    try:
        options, root = parse_args(argv), project_root()
        folder = (options.folder or root / FOLDER).expanduser().absolute()
        patterns = write_schemas(root, folder)
        sys.stdout.write(f"{len(patterns)} schemas in {folder}\n")
        if options.settings:
            write_settings(root / ".vscode" / "settings.json", patterns)
            sys.stdout.write(f"mapped to the configs in {root / '.vscode' / 'settings.json'}\n")
    except FulguriteError as error:
        return print_error(error)
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        return print_error(UserError(f"{error.filename}: {problem}. Correct it, or pass --folder=<folder>."))
    return EXIT_DONE
