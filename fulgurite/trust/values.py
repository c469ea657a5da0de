"""Values of a composed config that came from a foreign file: no address, no file outside of what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fulgurite.trust import hydra_part, targets
from fulgurite.trust.contents import Problem, place_problem
from fulgurite.trust.hydra_part import STREAMS
from fulgurite.trust.walk import HARMLESS, canonical, expand, inlined, last_part, leaves, look_up, resolvers

# Last parts of keys that name a folder or a file, those that a run writes to, and those of a server.
_FILES = re.compile(r"(^|_)(dir|dirs|path|paths|dirpath|file|files|folder|root|location|filename|repo)$|^ckpt_path$")
_WRITTEN = re.compile(r"(^|_)(dirpath|save_dir|default_root_dir|log_dir|output_dir|sub_dir|artifact_location|repo)$")
_NAMES = re.compile(r"(^|_)(filename|file|name|version|prefix)$")  # a plain name is no path
_METRIC = re.compile(r"\{[^{}]*\}")  # val/loss in the file name of a checkpoint
_SERVER = re.compile(r"(^|_)(uri|urls?|hosts?|hostname|endpoint|address|server|mirrors?|proxy|entity|workspace)$")
_ADDRESS = re.compile(r"[A-Za-z][\w+.\-]*://")
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[\\/]")

READERS = ("model.", "data.", "hydra.")  # the classes of the other parts write files
REPEATED = ("hydra.overrides", "hydra.job.override_dirname")  # the command line, whose keys are judged themselves


class Rules:
    """The rules for the values, at canonical `keys`, that foreign files set in a composed plain config."""

    def __init__(
        self, config: Mapping[str, Any], keys: Mapping[str, str], folders: Mapping[str, str], trusted: Sequence[str]
    ) -> None:
        self.config, self.keys, self.folders, self.trusted = config, keys, folders, trusted
        self.log_dir = Path(expand(config, "${paths.log_dir}", "")[0] or "logs")
        self.data_dir = Path(expand(config, "${paths.data_dir}", "")[0] or "data")
        self.run_dir = self.log_dir / ".run"  # stands for the folder of the run, which does not exist yet

    def problems(self) -> Iterator[tuple[Problem, str]]:
        """Yield each problem with the file that set the value."""
        for key, value in leaves(dict(self.config)):
            file = self.keys.get(canonical(key))
            if file is not None and not targets.is_target(self.config, key):
                problem = self._value_problem(key, value, file)
                if problem:
                    yield (key, value, problem), file
            elif file is None and isinstance(value, str) and not key.startswith(REPEATED):
                yield from self._argument_problems(key, value)
        yield from self._target_problems()
        yield from self._inlined_problems()

    def foreign_targets(self) -> dict[str, str]:
        """Return the path of each target that a foreign file sets or decides by an interpolation, and that file."""
        written = [(key, value) for key, value in leaves(dict(self.config)) if targets.is_target(self.config, key)]
        found = {key: self.keys.get(canonical(key)) or self._source(value, key) for key, value in written}
        return {key: file for key, file in found.items() if file is not None}

    def _expanded(self, text: str, key: str) -> tuple[str, set[str]]:
        return expand(self.config, text, key, str(self.run_dir))

    def _source(self, value: Any, key: str) -> str | None:
        """Return the foreign file whose values an interpolation reads; None for none."""
        seen = self._expanded(value, key)[1] if isinstance(value, str) and "${" in value else set()
        return next((self.keys[each] for each in sorted(seen) if each in self.keys), None)

    def _target_problems(self) -> Iterator[tuple[Problem, str]]:
        for key, file in self.foreign_targets().items():
            value = look_up(self.config, key)
            if isinstance(value, str) and "${" in value:
                problem = targets.name_problem(self._expanded(value, key)[0])
                if problem:
                    yield (key, value, problem), file

    def _inlined_problems(self) -> Iterator[tuple[Problem, str]]:
        """Yield the problems of values at the places to which references bring them."""
        for place, via, value in inlined(self.config):
            file = next((self.keys[each] for each in map(canonical, via) if each in self.keys), None)
            if file is None or last_part(place) == "_target_":
                continue
            if not place:
                yield (via[0], look_up(self.config, via[0]), "refers to too many values"), file
                continue
            key, is_hydra = place.removeprefix("hydra."), place.startswith("hydra.")
            problem = hydra_part.place_problem(key, value) if is_hydra else place_problem(key, value)
            if problem := problem or self._value_problem(place, value, file):
                yield (place, value, problem), file

    def _argument_problems(self, key: str, value: str) -> Iterator[tuple[Problem, str]]:
        """Yield the text of foreign files that the project's own configs pass to a resolver, e.g. to evaluate it."""
        if all(name in HARMLESS for name, _ in resolvers(value)):
            return
        for each in sorted(self._expanded(value, key)[1]):
            file, given = self.keys.get(each), look_up(self.config, each)
            if file is not None and isinstance(given, str):
                yield (each, given, f"would be passed to a resolver of {key}, which may run it as code"), file

    def _value_problem(self, key: str, value: Any, file: str) -> str:
        if not isinstance(value, str) or not value:
            return ""
        text, last = self._expanded(value, key)[0], last_part(key)
        if "${" in text:
            return "has too many interpolations to be judged, or makes another one of pieces"
        if re.match(r"hydra\.(job|hydra)_logging\.", key):
            is_object = "://" in text and text not in STREAMS
            outside = self._path_problem(text, file, written=True) if last == "filename" else ""
            return "names an object or an address" if is_object else outside
        return self._plain_problem(key, text, last, file)

    def _plain_problem(self, key: str, text: str, last: str, file: str) -> str:
        if key in {"hydra.run.dir", "hydra.sweep.dir"}:
            is_inside = not _has_parent(text) and _inside(text, self.log_dir)
            return "" if is_inside else f"is not below {self.log_dir}"
        if _ADDRESS.search(text) or _SERVER.search(last):
            return "" if self._is_trusted_address(text) else "names an address, which trust does not list"
        if _has_parent(text):
            return "leaves its folder with `..`"
        is_path = _FILES.search(last) and ("/" in _METRIC.sub("", text) or not _NAMES.search(last))
        # of a class whose first argument is a folder, or that joins a name to its folder
        is_first, is_name = last == "_args_" and self._may_take_folder(key), bool(_NAMES.search(last))
        if _ABSOLUTE.match(text) or is_path or is_first:
            is_written = is_first or _WRITTEN.search(last) or (is_name and not key.startswith(READERS))
            return self._path_problem(text, file, written=bool(is_written))
        return ""

    def _may_take_folder(self, key: str) -> bool:
        """Return whether the class of a positional argument may write to a folder that the argument names."""
        target = str(look_up(self.config, f"{key.rpartition('._args_')[0]}._target_"))
        is_harmless = targets.is_within(target, ("lightning.pytorch.callbacks",)) and "Checkpoint" not in target
        return not (key.startswith(READERS) or is_harmless)

    def _path_problem(self, text: str, file: str, *, written: bool) -> str:
        readable = (self.run_dir, self.log_dir, self.data_dir, Path(self.folders.get(file, self.run_dir)))
        folders = (self.run_dir,) if written else (*readable, *(Path(each).expanduser() for each in self.trusted))
        if not _has_parent(text) and any(_inside(text, folder) for folder in folders):
            return ""
        return "is not in the folder of the run" if written else "is a file outside of the folders for data and logs"

    def _is_trusted_address(self, text: str) -> bool:
        return any(is_below(text, each) for each in self.trusted)


def is_below(address: str, trusted: str) -> bool:
    """Return whether an address is one that is trusted, or below it."""
    return (address == trusted or address.startswith(f"{trusted.rstrip('/')}/")) and not _has_parent(address)


def leads_elsewhere(text: str, folders: Sequence[Path]) -> bool:
    """Return whether a text names an address, or a file outside of some folders. Relative ones begin with a folder."""
    if _ADDRESS.match(text) or _has_parent(text):
        return True
    try:
        is_path = _ABSOLUTE.match(text) or ("/" in text and Path(text).parts and Path(Path(text).parts[0]).exists())
        return bool(is_path) and not any(_inside(text, folder) for folder in folders)
    except (OSError, ValueError, RuntimeError):  # no name of a file, or of an unknown user
        return bool(_ABSOLUTE.match(text))


def _has_parent(text: str) -> bool:
    return ".." in re.split(r"[/\\]", text)


def _inside(text: str, folder: Path) -> bool:
    """Return whether a path, with its links followed, is in a folder."""
    return Path(text).expanduser().resolve().is_relative_to(folder.resolve())
