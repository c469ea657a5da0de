"""Read the parameters of a `_target_` and their annotations: from source, also through `**kwargs`, or imported."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from fulgurite.validation.signatures.decorators import keep_signature
from fulgurite.validation.signatures.kwargs import trace_kwargs
from fulgurite.validation.signatures.resolve import ancestry, locate, statements
from fulgurite.validation.signatures.source import Definition, Module, NotFound, is_overload

# nn.Module.__init__ has **kwargs and raises for each of them
_TAKE_NOTHING = {"torch.nn.modules.module.Module"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target."""

    name: str
    required: bool
    module: Module  # its names are those that the annotation uses
    annotation: ast.expr | None = None
    default: ast.expr | None = None  # None without one, and for `dataclasses.field`
    positional_only: bool = False

    @property
    def default_is_none(self) -> bool:
        """True for a default of None, which makes None valid whatever the annotation."""
        return isinstance(self.default, ast.Constant) and self.default.value is None


@dataclass(frozen=True)
class Signature:
    """The arguments of a target."""

    target: str  # dotted path
    parameters: dict[str, Parameter] = field(default_factory=dict)  # in the order of declaration
    takes_any: bool = False  # also accepts other names


@cache
def read_signature(target: str) -> Signature | NotFound | None:
    """Return the signature of a class, function or class method without importing it; None when source hides it."""
    found = locate(target)
    if isinstance(found, NotFound) or found is None:
        return found
    definition, owner = found
    signature: Signature | None = None
    if isinstance(definition.node, ast.ClassDef):
        signature = _of_class(definition)
    elif isinstance(definition.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        decorators = {ast.unparse(decorator) for decorator in definition.node.decorator_list}
        signature = _of_function(definition, skip_first=owner is not None and "classmethod" in decorators)
    return replace(signature, target=target) if signature else None


def _of_class(cls: Definition) -> Signature | None:
    # the `__call__` of a metaclass may take other arguments
    if "metaclass=" in cls.module.text and None in ancestry(cls):
        return None
    own = _constructor(cls)
    # without **kwargs, the sources of the bases are not needed
    return _from(own, [], cls) if own is not None and own.args.kwarg is None else _along(ancestry(cls))


def _along(order: Sequence[Definition | None]) -> Signature | None:
    """Return the signature of the first constructor in the order of lookup."""
    for position, cls in enumerate(order):
        if cls is None or not isinstance(cls.node, ast.ClassDef):
            return None
        if not keep_signature(cls.node.decorator_list, cls.module):
            return None
        if f"{cls.module.name}.{cls.node.name}" in _TAKE_NOTHING:
            return Signature("")
        constructor = _constructor(cls)
        if constructor is not None:
            return _from(constructor, order[position + 1 :], cls)
        if _is_dataclass(cls):
            return _of_dataclass(order[position:])
    return Signature("")


def _constructor(cls: Definition) -> ast.FunctionDef | None:
    found = {node.name: node for node in statements(cls) if isinstance(node, ast.FunctionDef) and not is_overload(node)}
    init, new = found.get("__init__"), found.get("__new__")
    if init is not None and new is not None and init.args.kwarg is not None:
        return new
    return init or new


def _from(node: ast.FunctionDef, bases: Sequence[Definition | None], cls: Definition) -> Signature | None:
    if not keep_signature(node.decorator_list, cls.module):
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


def _of_function(definition: Definition, *, skip_first: bool) -> Signature | None:
    node, module = definition.node, definition.module
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    if not keep_signature(node.decorator_list, module):
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
            default=default,
            positional_only=arg in args.posonlyargs,
        )
        for arg, default in [*plain, *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    }
    return Signature("", parameters, takes_any=args.kwarg is not None)


def _is_dataclass(cls: Definition) -> bool:
    decorators = cls.node.decorator_list if isinstance(cls.node, ast.ClassDef) else []
    written = (decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in decorators)
    return any(ast.unparse(name).rpartition(".")[2] == "dataclass" for name in written)


def _of_dataclass(order: Sequence[Definition | None]) -> Signature | None:
    parameters: dict[str, Parameter] = {}
    for cls in reversed(order):
        if cls is None:
            return None
        if not _is_dataclass(cls):
            continue
        for node in statements(cls):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            name, kind = node.target.id, ast.unparse(node.annotation)
            call = node.value if isinstance(node.value, ast.Call) else None
            options = {k.arg: ast.unparse(k.value) for k in call.keywords} if call else {}
            if "ClassVar" in kind or "KW_ONLY" in kind or options.get("init") == "False":
                continue
            is_field = call is not None and ast.unparse(call.func).rpartition(".")[2] == "field"
            optional = bool({"default", "default_factory"} & options.keys()) if is_field else node.value is not None
            annotation = None if "InitVar" in kind else node.annotation
            default = None if is_field else node.value
            parameters[name] = Parameter(name, not optional, cls.module, annotation, default)
    return Signature("", parameters)


def signature_of(found: Any) -> Signature | None:
    """Return the signature of an imported class or function; None when it has none or takes any name.

    The `**kwargs` of a class accept the arguments of its bases, up to the first one without `**kwargs`.
    """
    parameters: dict[str, Parameter] = {}
    owners: tuple[Any, ...] = inspect.getmro(found) if inspect.isclass(found) else (found,)
    for owner in owners:
        name = f"{getattr(owner, '__module__', '')}.{getattr(owner, '__qualname__', '')}"
        if owner is object or name in _TAKE_NOTHING:
            return Signature("", parameters)
        if owner is not found and vars(owner).keys().isdisjoint({"__init__", "__new__"}):
            continue
        try:
            taken = inspect.signature(owner).parameters.values()
        except (TypeError, ValueError):  # not callable, or compiled without a signature
            return None
        for parameter in taken:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                parameters.setdefault(parameter.name, _imported_parameter(parameter, is_own=owner is found))
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in taken):
            return Signature("", parameters)
    return None


def _imported_parameter(parameter: inspect.Parameter, *, is_own: bool) -> Parameter:
    return Parameter(
        parameter.name,
        required=is_own and parameter.default is parameter.empty,  # the class may pass an argument of its base itself
        module=Module("", None, opaque=True),
        positional_only=parameter.kind is parameter.POSITIONAL_ONLY,
    )
