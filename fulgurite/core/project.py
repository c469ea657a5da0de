"""Find the project's root from the script that was started, and prepare its environment."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import MutableMapping
from contextlib import suppress
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb

from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import rank

MARK = ".project-root"
VARIABLE = "PROJECT_ROOT"
# Variable that names a library's cache -> the default folder; None: the default is always writable.
CACHES = {
    "XDG_CACHE_HOME": "~/.cache",
    "TORCH_HOME": "~/.cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": None,
    "TRITON_CACHE_DIR": "~/.triton",
    "MPLCONFIGDIR": "~/.config/matplotlib",
    "HF_HOME": "~/.cache/huggingface",
}


@cache
def project_root() -> Path:
    """Return the folder of the project that this process works for.

    The first of these that is there: the folder in the environment variable `PROJECT_ROOT`, the nearest folder above
    the started script that holds `.project-root`, and the nearest such folder above the current one. A script of the
    Python environment (pytest, Jupyter, a console script) says nothing about the project and is skipped. The answer
    is cached; `project_root.cache_clear()` forgets it.

    Raises:
        UserError: `PROJECT_ROOT` names a folder without `.project-root` or another project than the started script's,
            or no folder holds that file.

    Example:
        >>> table = project_root() / "data" / "table.csv"
    """
    if (found := find_project()) is not None:
        return found
    raise UserError(
        f"{Path.cwd()}: no folder above it holds {MARK}. Start from inside a project, or create that file at its root."
    )


def find_project() -> Path | None:
    """Return the folder of `project_root`; None where there is no project."""
    script = _started_script()
    of_script = _nearest_root(script.parent) if script else None
    if named := os.environ.get(VARIABLE):
        root = Path(named).expanduser().resolve()
        if not (root / MARK).is_file():
            raise UserError(f"{VARIABLE}={named}: the folder holds no {MARK}. Correct the variable, or unset it.")
        if of_script not in {None, root}:
            raise UserError(f"{VARIABLE}={named}: {script} belongs to the project {of_script}. Unset the variable.")
        return root
    return of_script or _nearest_root(Path.cwd())


def _nearest_root(start: Path) -> Path | None:
    return next((folder for folder in (start, *start.parents) if (folder / MARK).is_file()), None)


def _started_script() -> Path | None:
    """Return the started script; None for a prompt, `-c`, and scripts of the Python environment."""
    script = Path(sys.argv[0] if sys.argv else "").absolute()
    environments = (sys.prefix, sys.base_prefix)
    if not script.is_file() or any(script.is_relative_to(folder) for folder in environments):
        return None
    if "site-packages" in script.parts:  # of another environment, whose packages this one borrows
        return None
    return script.resolve()


def prepare_environment() -> None:
    """Export the root as `PROJECT_ROOT`, which configs read, load its `.env` and import its `src/resolvers.py`.

    Variables that are set already win over `.env`.

    Raises:
        UserError: There is no project, or its `src/resolvers.py` raises an error.
    """
    root = project_root()
    os.environ[VARIABLE] = str(root)
    if (root / ".env").is_file():
        from dotenv import load_dotenv

        load_dotenv(root / ".env")
    _import_resolvers(root / "src" / "resolvers.py")


def _import_resolvers(file: Path) -> None:
    """Import the file in which a project registers resolvers of its own, once."""
    name = "src.resolvers"
    if not file.is_file() or getattr(sys.modules.get(name), "__file__", None) == str(file):
        return
    if str(file.parents[1]) not in sys.path:  # python -m fulgurite in another folder: the file may import from src
        sys.path.insert(0, str(file.parents[1]))
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 1
        raise UserError(f"{file}:{line}: {type(error).__name__}: {error}. Correct the file.") from error


def use_writable_caches(env: MutableMapping[str, str]) -> None:
    """Redirect cache folders that are not writable to a private one, with one warning."""
    folders = {name: env.get(name) or default for name, default in CACHES.items()}
    unwritable = {name: folder for name, folder in folders.items() if folder and not _is_writable(folder)}
    if not unwritable:
        return
    private = _private_folder()
    env.update({name: str(private / name.lower()) for name in unwritable})
    shown = [f"{name}={folder}" for name, folder in unwritable.items() if folder != CACHES[name]] or ["HOME"]
    if rank() == 0:
        sys.stderr.write(f"warning: {', '.join(shown)}: not writable. Caches go to {private}.\n")


def _is_writable(given: str) -> bool:
    """Return whether the folder, or the nearest existing folder above it, is writable."""
    folder = Path(os.path.expanduser(given))  # noqa: PTH111 - never fails
    for existing in (folder, *folder.parents):
        if os.path.lexists(existing):
            return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return False


def _private_folder() -> Path:
    """Return a folder that only this user can enter, the same at each start."""
    wanted = Path(tempfile.gettempdir()) / f"fulgurite-cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with suppress(OSError):
        wanted.mkdir(mode=0o700, exist_ok=True)
        found = wanted.lstat()
        # another user can create the folder first, to read or plant cache entries
        is_own = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0)
        if is_own and stat.S_ISDIR(found.st_mode):
            return wanted
    return Path(tempfile.mkdtemp(prefix="fulgurite-cache-"))
