"""Make a JSON schema of each config group from the config files and the signatures of the classes that they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulgurite.config.schema import GROUPS, TOP_LEVEL, field_types
from fulgurite.config.tracing.settings import read_yaml
from fulgurite.config.view import is_interpolation, join
from fulgurite.core.files import read_regular
from fulgurite.explain.readers import type_of
from fulgurite.validation.signatures.json_types import INTERPOLATION, Schema, of_annotation, schema_of
from fulgurite.validation.signatures.signature import Parameter, Signature, read_signature
from fulgurite.validation.targets import RANGES

DRAFT = "http://json-schema.org/draft-07/schema#"
ROOT = "configs"  # the schema of the files in `configs/` itself
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
_SPECIAL: dict[str, Schema] = {
    "_partial_": {"type": "boolean", "description": "true: the class is called later, with more arguments"},
    "_recursive_": {"type": "boolean", "description": "false: blocks below are passed as they are"},
    "_convert_": {"enum": ["none", "partial", "object", "all"]},
    "_args_": {"type": "array", "description": "positional arguments"},
}


@dataclass
class _Block:
    """A dictionary at one place of the composed config, over all files."""

    targets: dict[str, None] = field(default_factory=dict)  # in the order of the files
    children: dict[str, _Block] = field(default_factory=dict)
    keys: dict[str, None] = field(default_factory=dict)

    def add(self, content: dict[Any, Any]) -> None:
        target = content.get("_target_")
        if isinstance(target, str) and not is_interpolation(target):
            self.targets[target] = None
        for name, value in content.items():
            if isinstance(value, dict):
                self.children.setdefault(str(name), _Block()).add(value)
            elif name != "_target_":
                self.keys[str(name)] = None

    def at(self, path: str) -> _Block:
        block = self
        for name in path.split(".") if path else ():
            block = block.children.setdefault(name, _Block())
        return block


def make_schemas(configs: Path) -> dict[str, Schema]:
    """Return the JSON schema of each config group by its name, and under `configs` that of the files in no group.

    Args:
        configs: The folder of the configs.
    """
    groups = sorted(folder.name for folder in configs.iterdir() if folder.is_dir() and folder.name != "hydra")
    files = {group: sorted((configs / group).rglob("*.yaml")) for group in groups}
    files[ROOT] = sorted(configs.glob("*.yaml"))
    tree = _Block()
    for group, found in files.items():
        for file in found:
            content = {name: value for name, value in read_yaml(file).items() if name not in {"defaults", "hydra"}}
            tree.at(package_of(group, [file])).add(content)
    options = {group: list(_names(configs / group, found)) for group, found in files.items() if group != ROOT}
    writer = _Writer(tree)
    return {group: writer.root(package_of(group, found), group, options) for group, found in files.items()}


def package_of(group: str, files: Iterable[Path]) -> str:
    """Return the key at which the composed config holds the content of a group; its first file decides."""
    for file in files:
        try:
            text = read_regular(file).decode(errors="replace")
        except OSError:  # `read_yaml` returns no content for such a file
            text = ""
        found = _PACKAGE.search("\n".join(text.splitlines()[:10]))
        if found:
            return "" if found[1] == "_global_" else found[1].replace("_group_", group)
        return "" if group == ROOT else group
    return "" if group == "local" else group


def _names(folder: Path, files: Iterable[Path]) -> Iterator[str]:
    yield from (file.relative_to(folder).with_suffix("").as_posix() for file in files)


class _Writer:
    """Writes blocks as definitions that refer to one another."""

    def __init__(self, tree: _Block) -> None:
        self.tree = tree
        self.definitions: dict[str, Schema] = {}

    def root(self, path: str, group: str, options: dict[str, list[str]]) -> Schema:
        """Return the schema of a file whose content stands at `path`."""
        self.definitions = {}
        schema = self._block(self.tree.at(path), path, {"defaults": _defaults(group, options)})
        title = f"configs/{'' if group == ROOT else group}"
        return {"$schema": DRAFT, "title": title, **schema, "definitions": self.definitions}

    def _reference(self, block: _Block, path: str) -> Schema:
        if path not in self.definitions:
            self.definitions[path] = {}
            self.definitions[path] = self._block(block, path, {})
        # null removes an entry of a group
        return {"anyOf": [{"$ref": f"#/definitions/{path}"}, {"type": "null"}, INTERPOLATION]}

    def _block(self, block: _Block, path: str, extra: dict[str, Schema]) -> Schema:
        if not path:
            return self._closed({name: self._top(name) for name in (*TOP_LEVEL, *block.children)}, extra)
        for schema in GROUPS:
            if schema.group == path:
                return self._closed({name: _of_text(kind) for name, kind in field_types(schema).items()}, extra)
        if block.targets:
            return self._of_targets(block, path, extra)
        below = {name: self._reference(child, join(path, name)) for name, child in block.children.items()}
        return {"type": ["object", "null"], "properties": {**{key: {} for key in block.keys}, **below, **extra}}

    @staticmethod
    def _closed(properties: dict[str, Schema], extra: dict[str, Schema]) -> Schema:
        return {"type": ["object", "null"], "properties": {**properties, **extra}, "additionalProperties": False}

    def _top(self, name: str) -> Schema:
        if name in self.tree.children or any(schema.group == name for schema in GROUPS):
            return self._reference(self.tree.at(name), name)
        return _of_text(TOP_LEVEL[name]) if TOP_LEVEL[name] else {}

    def _of_targets(self, block: _Block, path: str, extra: dict[str, Schema]) -> Schema:
        """Return the schema of a block by its `_target_`; a file without one may have the keys of all targets."""
        target: Schema = {"anyOf": [{"enum": list(block.targets)}, {"type": "string"}]}
        properties: dict[str, Schema] = {}
        cases: list[Schema] = []
        is_open = False
        for name in block.targets:
            signature = read_signature(name)
            known = self._parameters(signature, block, path) if isinstance(signature, Signature) else {}
            properties |= {name: _either(properties.get(name), schema) for name, schema in known.items()}
            case: Schema = {"properties": {**known, **_SPECIAL, "_target_": target, **extra}}
            if isinstance(signature, Signature) and not signature.takes_any:
                case["additionalProperties"] = False
            else:
                is_open = True
            given: Schema = {"properties": {"_target_": {"const": name}}, "required": ["_target_"]}
            cases.append({"if": given, "then": case})
        rest: Schema = {"properties": {**properties, **_SPECIAL, "_target_": target, **extra}}
        if not is_open:
            rest["additionalProperties"] = False
        cases.append({"if": {"not": {"required": ["_target_"]}}, "then": rest})
        return {"type": ["object", "null"], "properties": {"_target_": target, **extra}, "allOf": cases}

    def _parameters(self, signature: Signature, block: _Block, path: str) -> dict[str, Schema]:
        found = {}
        for name, parameter in signature.parameters.items():
            if parameter.positional_only:
                continue
            child = block.children.get(name)
            schema = _of_parameter(signature, parameter)
            if child is not None and child.targets:
                options = self._reference(child, join(path, name))["anyOf"]
                plain = schema.pop("anyOf", [{"not": {"type": "object"}}])
                schema["anyOf"] = [
                    *options,
                    *(one for one in plain if one not in options and one != {"type": "object"}),
                ]
            found[name] = schema
        return found


def _of_parameter(signature: Signature, parameter: Parameter) -> Schema:
    schema = dict(schema_of(parameter))
    if "anyOf" in schema and (limit := RANGES.get(parameter.name)):
        schema["anyOf"] = [
            {**one, "minimum": limit[0]} if one.get("type") in {"integer", "number"} else one for one in schema["anyOf"]
        ]
    kind, default = type_of(parameter), parameter.default
    written = f" = {ast.unparse(default)}" if default is not None else ""
    name = signature.target.rpartition(".")[2]
    return {**schema, "description": f"{name}({parameter.name}{f': {kind}' if kind else ''}{written})"}


def _either(one: Schema | None, other: Schema) -> Schema:
    """Return the schema of a parameter that several targets of a block have."""
    if one is None or one == other:
        return other
    if "anyOf" not in one or "anyOf" not in other:
        return {"description": other["description"]}
    more = [schema for schema in other["anyOf"] if schema not in one["anyOf"]]
    return {**other, "anyOf": [*one["anyOf"], *more]}


def _of_text(annotation: str) -> Schema:
    schema = of_annotation(ast.parse(annotation, mode="eval").body, None)
    return {**schema, "description": annotation}


def _defaults(group: str, options: dict[str, list[str]]) -> Schema:
    """Return the schema of a defaults list: options of the same group, and choices of other groups."""
    groups = {
        key: {"anyOf": [{"enum": [*names, None]}, {"type": ["string", "array", "null"]}]}
        for name, names in options.items()
        for key in (name, f"/{name}", f"override /{name}")
    }
    entry = {"anyOf": [{"enum": ["_self_", *options.get(group, ())]}, {"type": "string"}]}
    return {"type": "array", "items": {"anyOf": [entry, {"type": "object", "properties": groups}]}}
