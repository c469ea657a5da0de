"""What a `_target_` takes, read from its source: parameters, annotations, and where `**kwargs` lead."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from fulgurite.validation.signatures.kwargs import trace_kwargs
from fulgurite.validation.signatures.resolve import ancestry, locate, resolve, statements
from fulgurite.validation.signatures.source import Definition, Module, NotFound, is_overload

# decorators after which a function or a class keeps the signature of its source
_TRANSPARENT = {
    "abstractmethod", "cache", "classmethod", "contextmanager", "deprecated", "final", "inference_mode", "lru_cache",
    "no_grad", "override", "runtime_checkable", "staticmethod", "total_ordering", "typechecked", "wraps",
}  # fmt: skip
# nn.Module.__init__ is written with **kwargs and raises for every one of them
_TAKE_NOTHING = {"torch.nn.modules.module.Module"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Args:
        name: As written in the config.
        required: It has no default.
        module: The module whose names the annotation uses.
        annotation: Syntax of the annotation; None when there is none.
        default_is_none: `None` may be given whatever the annotation.
        positional_only: It cannot be given by name.
    """

    name: str
    required: bool
    module: Module
    annotation: ast.expr | None = None
    default_is_none: bool = False
    positional_only: bool = False


@dataclass(frozen=True)
class Signature:
    """What a target takes by name.

    Args:
        target: The dotted path it was read for.
        parameters: By name, in the order they are declared.
        takes_any: Other names are accepted as well.
    """

    target: str
    parameters: dict[str, Parameter] = field(default_factory=dict)
    takes_any: bool = False


@cache
def read_signature(target: str) -> Signature | NotFound | None:
    """Return what a target takes, without importing it; None when its source does not show it.

    Args:
        target: Dotted path of a class, a function or a class method.

    Returns:
        The signature; `NotFound` when the target does not exist; None when that cannot be known from source.
    """
    found = locate(target)
    if isinstance(found, NotFound) or found is None:
        return found
    definition, owner = found
    if owner is not None:
        signature = _of_method(definition)
    elif isinstance(definition.node, ast.ClassDef):
        signature = _of_class(definition)
    elif isinstance(definition.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        signature = _of_function(definition, skip_first=False)
    else:
        signature = None
    return replace(signature, target=target) if signature else None


def _of_class(cls: Definition) -> Signature | None:
    own = _constructor(cls)
    # most classes write their constructor out: then the sources of their bases need not be read
    return _from(own, [], cls) if own is not None and own.args.kwarg is None else _along(ancestry(cls))


def _along(order: Sequence[Definition | None]) -> Signature | None:
    """Return the signature of the first constructor along a line of classes."""
    for position, cls in enumerate(order):
        if (
            cls is None
            or not isinstance(cls.node, ast.ClassDef)
            or not _is_transparent(cls.node.decorator_list, cls.module)
        ):
            return None
        if f"{cls.module.name}.{cls.node.name}" in _TAKE_NOTHING:
            return Signature("")
        constructor = _constructor(cls)
        if constructor is not None:
            return _from(constructor, order[position + 1 :], cls)
        if _dataclass_options(cls) is not None:
            return _of_dataclass(order[position:])
    return Signature("")


def _constructor(cls: Definition) -> ast.FunctionDef | None:
    found = {node.name: node for node in statements(cls) if isinstance(node, ast.FunctionDef) and not is_overload(node)}
    init, new = found.get("__init__"), found.get("__new__")
    if init is not None and new is not None and init.args.kwarg is not None:
        return new
    return init or new


def _from(node: ast.FunctionDef, bases: Sequence[Definition | None], cls: Definition) -> Signature | None:
    if not _is_transparent(node.decorator_list, cls.module):
        return None
    signature = _of_function(Definition(node, cls.module), skip_first=True)
    if signature is None or not signature.takes_any:
        return signature
    trace = trace_kwargs(node)
    parameters = dict(signature.parameters)
    for name in trace.named:
        parameters.setdefault(name, Parameter(name, required=False, module=cls.module))
    if trace.call is None or trace.leaks:
        return replace(signature, parameters=parameters, takes_any=trace.leaks or not trace.refuses_rest)
    base = _along(bases)
    if base is None:
        return replace(signature, parameters=parameters)
    for name, parameter in trace.left_over(base.parameters).items():
        parameters.setdefault(name, parameter)
    return replace(signature, parameters=parameters, takes_any=base.takes_any)


def _of_method(method: Definition) -> Signature | None:
    assert isinstance(method.node, (ast.FunctionDef, ast.AsyncFunctionDef))
    kinds = {ast.unparse(decorator) for decorator in method.node.decorator_list}
    return _of_function(method, skip_first="classmethod" in kinds)


def _of_function(definition: Definition, *, skip_first: bool) -> Signature | None:
    node, module = definition.node, definition.module
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    if not _is_transparent(node.decorator_list, module):
        return None
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    plain = list(zip(positional, defaults, strict=True))[1 if skip_first else 0 :]
    parameters = {
        arg.arg: Parameter(
            arg.arg,
            required=default is None,
            module=module,
            annotation=arg.annotation,
            default_is_none=isinstance(default, ast.Constant) and default.value is None,
            positional_only=arg in args.posonlyargs,
        )
        for arg, default in [*plain, *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    }
    return Signature("", parameters, takes_any=args.kwarg is not None)


def _is_transparent(decorators: Sequence[ast.expr], module: Module) -> bool:
    return all(_keeps_signature(decorator, module) for decorator in decorators)


def _keeps_signature(decorator: ast.expr, module: Module) -> bool:
    written = decorator.func if isinstance(decorator, ast.Call) else decorator
    if ast.unparse(written).rpartition(".")[2] in _TRANSPARENT | {"dataclass"}:
        return True
    found = resolve(module, written)
    # functools.wraps says the wrapper takes what the wrapped function takes; inspect.signature believes it too
    return isinstance(found, Definition) and any(
        isinstance(node, ast.FunctionDef) and any("wraps" in ast.unparse(d) for d in node.decorator_list)
        for node in ast.walk(found.node)
    )


def _dataclass_options(cls: Definition) -> dict[str, bool] | None:
    assert isinstance(cls.node, ast.ClassDef)
    for decorator in cls.node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        if ast.unparse(call.func if call else decorator).rpartition(".")[2] == "dataclass":
            return {k.arg: getattr(k.value, "value", None) is True for k in (call.keywords if call else []) if k.arg}
    return None


def _of_dataclass(order: Sequence[Definition | None]) -> Signature | None:
    parameters: dict[str, Parameter] = {}
    for cls in reversed(order):
        if cls is None:
            return None
        if _dataclass_options(cls) is None:
            continue
        for node in statements(cls):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            name, kind = node.target.id, ast.unparse(node.annotation)
            given = (
                {k.arg: ast.unparse(k.value) for k in node.value.keywords} if isinstance(node.value, ast.Call) else {}
            )
            if "ClassVar" in kind or "KW_ONLY" in kind or given.get("init") == "False":
                continue
            is_field = isinstance(node.value, ast.Call) and ast.unparse(node.value.func).rpartition(".")[2] == "field"
            optional = bool({"default", "default_factory"} & given.keys()) if is_field else node.value is not None
            is_none = isinstance(node.value, ast.Constant) and node.value.value is None
            annotation = None if "InitVar" in kind else node.annotation
            parameters[name] = Parameter(name, not optional, cls.module, annotation, default_is_none=is_none)
    return Signature("", parameters)
