"""Save and restore state that user code keeps in attributes, and name what cannot be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MethodType
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.compat.modules import ModelParts, model_parts
from fulgurite.compat.optimizer_states import RESET
from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.objects.encoding import KEPT, Encoder, changed_paths
from fulgurite.exact_resume.objects.restoring import MISSING, Restorer
from fulgurite.exact_resume.objects.walk import Walk, scan
from fulgurite.exact_resume.used_code.kept_values import Linked
from fulgurite.exact_resume.user_state.loader_owners import UNSAVED, Owner
from fulgurite.exact_resume.user_state.owners import known_objects, owners
from fulgurite.exact_resume.user_state.shared_owners import follow_late_code, used_code
from fulgurite.exact_resume.values.kinds import unwrapped

REMOVED = ["removed", None]  # in place of an attribute that was there at the start
REPLACED = (
    "this attribute was replaced, and its loader still has the former object, as a resumed run has not. Change the "
    "object in place, or make the loaders again (trainer.reload_dataloaders_every_n_epochs=1)."
)

State = dict[str, dict[str, Any]]  # converted values by owner and name
Attribute = tuple[Owner, str, Any]
Report = Callable[[str, str], None]


class Attributes:
    """What changed in the attributes of a run's model, data and callbacks since the start of `fit`."""

    def __init__(self) -> None:
        self._start: dict[str, Any] = {}  # signs at the start, by path
        self._existing: dict[str, Any] = {}  # signs of objects that the hooks of each start make, by path
        self._owners: set[str] = set()  # keys of the owners whose signs are taken
        self._changed: set[str] = set()
        self._names: dict[str, tuple[str, set[str]]] = {}  # class and attributes at the start, by owner
        self._in_loaders: dict[str, tuple[str, Any]] = {}  # owner and object of attributes that loaders read, by path

    def remember(self, trainer: Trainer, parts: ModelParts | None = None, *, is_start: bool = False) -> None:
        """Take the present values of new owners as those of the start, and new objects as made by each start.

        With `is_start`, hooks of the start made the objects of owners that are not new, too.
        """
        parts = parts or model_parts(trainer.lightning_module)
        walk, found = Walk(known_objects(trainer, parts)), list(owners(trainer, parts))
        new = {owner.key for owner in found} - self._owners
        held = {id(owner.holder): owner.key for owner in found if owner.holder is not None}
        prefixes = tuple(f"{key}." for key in new)
        for owner, name, value in _attributes(found):
            # the code of samplers that are made later uses more variables of a module
            is_new = owner.key in new or not (owner.restores or f"{owner.key}.{name}" in self._start)
            if id(value) in held:
                self._in_loaders[f"{owner.key}.{name}"] = held[id(value)], value
            for path, _, node in scan(walk, value, f"{owner.key}.{name}", signed=is_new):
                if is_new:
                    self._start.setdefault(path, node.sign)
                elif node.form == "same" and path in self._start and node.sign.startswith(prefixes):
                    self._start[path] = node.sign  # an owner that comes first has it too now: a loader
                if node.form in ("object", "opaque", "constant") and (is_start or path not in self._existing):
                    self._existing[path] = node.sign
        for owner in found:
            if owner.key in new and type(owner.values) is dict and owner.restores:
                self._names[owner.key] = owner.name, set(owner.values) - owner.excluded
        self._owners |= new
        used, _ = used_code(trainer)
        if used.is_searching and (late := used.lacking([*walk.code.values(), *used.arrived()])):
            used.add(late, keep=False)
            self.remember(trainer, parts, is_start=is_start)

    def forget(self, keys: Iterable[str]) -> None:
        """Forget the values of owners whose objects were replaced."""
        prefixes = tuple(f"{key}." for key in keys)
        self._owners -= set(keys)
        self._in_loaders = {path: held for path, held in self._in_loaders.items() if held[0] in self._owners}
        self._names = {key: names for key, names in self._names.items() if key in self._owners}
        for paths in (self._start, self._existing):
            for path in [path for path in paths if path.startswith(prefixes)]:
                del paths[path]
        self._changed -= {path for path in self._changed if path.startswith(prefixes)}

    def state_dict(
        self,
        trainer: Trainer,
        keys: tuple[str, ...] = (),
        *,
        parts: ModelParts | None = None,
        names: bool = True,
        thorough: bool = False,
    ) -> State:
        """Return what changed, of the owners with these keys, or of all without keys.

        With `names`, name what cannot be saved; with `thorough`, read large tensors and lists as a whole for it.
        """
        parts = parts or model_parts(trainer.lightning_module)
        found = [self._at_start(owner) for owner in self._known_owners(trainer, parts, keys)]
        report = partial(_report, {owner.key: owner for owner in found} if names else {})
        walk = Walk(known_objects(trainer, parts), thorough=thorough)
        encoder = Encoder(walk, self._start, self._existing, self._changed, report, is_part=bool(keys))
        attributes = list(_attributes(found))
        state = _encode(encoder, attributes, report)
        if names and follow_late_code(trainer, walk.code.values()):
            self.remember(trainer, parts)
        # a reload at the start of the next epoch makes the loaders again
        is_final = names and not (thorough and vars(trainer)["reload_dataloaders_every_n_epochs"])
        for owner, name, value in attributes if is_final and self._in_loaders else ():
            if value is not self._in_loaders.get(f"{owner.key}.{name}", ("", value))[1]:
                name_inexact(f"{owner.name}.{name}", REPLACED)
        for owner in found:
            kind, start = self._names.get(owner.key, ("", set()))
            if kind == owner.name:
                for name in start - owner.values.keys() - _registered(owner.values):
                    state.setdefault(owner.key, {})[name] = REMOVED
        return state

    def state_of(self, trainer: Trainer, keys: tuple[str, ...], like: State) -> State:
        """Return the present values of what changed in another state, of the owners with these keys."""
        values = [(f"{key}.{name}", plain) for key in keys for name, plain in like.get(key, {}).items()]
        paths = {path for start, plain in values for path in changed_paths(plain, start)}
        parts = model_parts(trainer.lightning_module)
        found = self._known_owners(trainer, parts, keys) if keys else []
        walk = Walk(known_objects(trainer, parts))
        report = partial(_report, {})  # names nothing
        encoder = Encoder(walk, self._start, self._existing, paths, report, is_part=True)
        state = _encode(encoder, _attributes(found), report, weights=True)
        for owner in found:
            for name in like.get(owner.key, {}).keys() - owner.values.keys() - _registered(owner.values):
                state.setdefault(owner.key, {})[name] = REMOVED  # a default of the class, so far
        return state

    def _known_owners(self, trainer: Trainer, parts: ModelParts, keys: tuple[str, ...]) -> list[Owner]:
        """Return the owners with these keys, or all, whose values at the start are known."""
        found, missing = [], set(keys)
        for owner in owners(trainer, parts):
            if owner.key in self._owners and (not keys or owner.key in missing):
                found.append(owner)
            missing.discard(owner.key)
            if keys and not missing:
                break  # those of the user's modules come last and take longest
        return found

    def _at_start(self, owner: Owner) -> Owner:
        """Return an owner without items that came after the start: they are named as a change of the structure."""
        if not owner.has_fixed_items:
            return owner
        values = {
            name: tuple(item for number, item in enumerate(items) if f"{owner.key}.{name}[{number}]" in self._existing)
            for name, items in owner.values.items()
        }
        return replace(owner, values=values)

    def load_state_dict(self, trainer: Trainer, state: State) -> None:
        """Restore what `state_dict` returned."""
        parts = model_parts(trainer.lightning_module)
        walk, objects = Walk(known_objects(trainer, parts)), dict[str, Any]()
        present = list(owners(trainer, parts))
        for owner, name, value in _attributes(present):
            for path, found, node in scan(walk, value, f"{owner.key}.{name}", signed=False):
                objects[path] = found
                if node.form in ("object", "opaque", "constant"):
                    self._existing[path] = node.sign
        restorer = Restorer(walk, objects, trainer.strategy.root_device, self._changed)
        reset = tuple(vars(trainer).get(RESET, ()))
        for owner in present:
            for name, plain in state.get(owner.key, {}).items():
                if name in owner.excluded or owner.key.startswith(reset):
                    continue
                if plain == REMOVED:
                    owner.values.pop(name, None)
                    continue
                current = unwrapped(owner.values.get(name, MISSING))
                restored = restorer.restore(plain, current, f"{owner.key}.{name}")
                if restored is not current or isinstance(owner.values, Linked):  # which may hold a copy
                    owner.values[name] = restored


def _encode(encoder: Encoder, attributes: Iterable[Attribute], report: Report, *, weights: bool = False) -> State:
    """Return the converted attributes that changed; weights: of any size."""
    state = State()
    for owner, name, value in attributes:
        path = f"{owner.key}.{name}"
        plain, changed = encoder.encode_part(value, path, weights=weights)
        if changed and not owner.restores:
            report(path, UNSAVED)
        elif changed and plain != KEPT:
            state.setdefault(owner.key, {})[name] = plain
    return state


def _attributes(found: Iterable[Owner]) -> Iterator[Attribute]:
    """Yield each owner, and the name and value of each of its attributes, in the same order in each run."""
    for owner in found:
        for name in sorted((name for name in owner.values if name not in owner.excluded), key=str):
            value = unwrapped(owner.values[name])
            if not str(name).startswith("_hparams") and not _is_own_method(name, value):
                yield owner, name, value


def _registered(values: Mapping[str, Any]) -> set[str]:
    """Return the attributes that torch keeps elsewhere: an attribute that was None may become a module or a weight."""
    held = (values.get(kind) for kind in ("_modules", "_parameters", "_buffers"))  # of a script, no dictionaries
    return {name for each in held if isinstance(each, dict) for name in each}


def _is_own_method(name: str, value: Any) -> bool:
    """Return whether an attribute is the method of its name, as Lightning sets `forward` under several processes."""
    return isinstance(value, MethodType) and value.__func__ is getattr(type(value.__self__), name, None)


def _report(owned: Mapping[str, Owner], path: str, reason: str) -> None:
    """Name an attribute that cannot be saved."""
    key = max((key for key in owned if path.startswith(f"{key}.")), key=len, default="")
    if key and not owned[key].is_saved:
        subject = f"{owned[key].name}{path[len(key) :].partition('[')[0]}"
        name_inexact(subject, f"this attribute {reason}. {owned[key].remedy}.")
