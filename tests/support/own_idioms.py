"""More of the package of `own_code`: what people write with types, decorators, metaclasses and factories.

`IDIOMS` are experiments for it, two idioms each: one of the model or the trainer, one of the net or the data.
"""

from __future__ import annotations

IDIOM_CODE = """
from __future__ import annotations
import abc, enum, functools, importlib, os
from argparse import Namespace
from dataclasses import InitVar, dataclass, field
from functools import lru_cache, partial, wraps
from typing import *
from typing import TYPE_CHECKING, Annotated, Any, Callable, ClassVar, Generic, Literal, NamedTuple, NewType, Protocol
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import ParamSpec, Required, TypeAlias, TypedDict, Unpack
if TYPE_CHECKING:
    from nowhere import Thing

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
Width = NewType("Width", int)
PathLike: TypeAlias = Union[str, os.PathLike]
Dims = Union[int, "list[int]"]


class LossFn(Protocol):
    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor: ...


class NetConfig(TypedDict, total=False):
    width: Required[int]
    depth: int


class Registry:
    def __init__(self): self.classes = {}
    def register(self, name=None):
        def add(cls):
            self.classes[name or cls.__name__] = cls
            return cls
        return add


MODELS = Registry()


def log_args(init):
    @wraps(init)
    def wrapper(self, *args, **kwargs):
        return init(self, *args, **kwargs)
    return wrapper


def timed(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)
    return inner


class Net(nn.Module):
    def __init__(self, width: Width = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 10))
    def forward(self, x): return self.layers(x)


class Wrapped(Net):
    @log_args
    def __init__(self, width: "Width | None" = 4, thing: Thing | None = None): super().__init__(width)


class Chosen:
    def __new__(cls, kind: Literal["a", "b"] = "a", **kwargs): return Net(**kwargs)


class Meta(type):
    def __call__(cls, *args, note=None, **kwargs):
        made = super().__call__(*args, **kwargs)
        made.note = note
        return made


class Noted(Net, metaclass=Meta):
    pass


class NotedToo(Noted):
    def __init__(self, width=4): super().__init__(width)


class Nested(Net):
    class Inner(Net):
        pass
    @staticmethod
    def build(width: int | None = None): return Nested.Inner(width or 4)
    @classmethod
    def from_config(cls, cfg: NetConfig): return cls.Inner(cfg["width"])


small = partial(Wrapped, width=4)
tiny = lambda width=2: Wrapped(width)


class Builder:
    def __call__(self, width=4): return Net(width)


build = Builder()


@lru_cache
def cached(width=4): return Net(width)


@timed
def make(width: Width, *, act: type[nn.Module] | None = None, **kwargs: Unpack[NetConfig]) -> nn.Module:
    return Net(width)


class Over(Net):
    @overload
    def __init__(self, width: int) -> None: ...
    @overload
    def __init__(self, width: list[int], depth: int) -> None: ...
    def __init__(self, width, depth=None): super().__init__(width if isinstance(width, int) else width[0])


class Positional(Net):
    def __init__(self, width, /, depth=1, *, act): super().__init__(width)


class Act(enum.Enum):
    RELU = enum.auto()


class Norm(nn.Module):
    def __init__(self, eps: float = 1e-5): super().__init__()


class Typed(Net):
    SIZE: ClassVar[int] = 3
    def __init__(self, dims: Dims = 4, act: Act | str = Act.RELU, drop: Annotated[float, "rate"] = 0,
                 norm: Optional["Norm"] = None, layer: Type[nn.Module] = nn.Linear, root: PathLike = ".",
                 fn: Callable[[Tensor], Tensor] | None = None, sizes: "Sequence[int] | None" = None,
                 names: tuple[str, ...] = (), any_of: "int | list[list[float]]" = 3):
        super().__init__(dims if isinstance(dims, int) else dims[0])


class Lit(LightningModule):
    def __init__(self, net: nn.Module, loss: LossFn = None, lr: float = 0.01):
        super().__init__()
        self.save_hyperparameters(ignore=["net", "loss"])
        self.net, self.loss = net, loss or nn.functional.cross_entropy
    def _log(self, batch, name):
        loss = self.loss(self.net(batch[0]), batch[1])
        self.log(f"{name}/loss", loss)
        return loss
    def training_step(self, batch, i): return self._log(batch, "train")
    def validation_step(self, batch, i): self._log(batch, "val")
    def test_step(self, batch, i): self._log(batch, "test")
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=self.hparams.get("lr", 0.1))


class Plain(Lit):
    def __init__(self, width: int | str = 4, lr=0.01): super().__init__(Net(int(width)), lr=lr)


class LogMixin:
    def __init__(self, *args, log_every: int = 3, **kwargs): super().__init__(*args, **kwargs)


class EmaMixin:
    def __init__(self, *args, decay: float = 0.9, **kwargs): super().__init__(*args, **kwargs)


class Mixed(LogMixin, EmaMixin, Lit):
    pass


class GenericBase(Lit, Generic[T]):
    def __init__(self, width: int, target: T | None = None, **kwargs): super().__init__(Net(width), **kwargs)


class Concrete(GenericBase[Tensor]):
    pass


class Abstract(abc.ABC, Lit):
    @abc.abstractmethod
    def make(self, cfg: NetConfig) -> nn.Module: ...
    def __init__(self, cfg: NetConfig, **kwargs): super().__init__(self.make(cfg), **kwargs)


class Impl(Abstract):
    def make(self, cfg): return Net(cfg["width"])


class Hparams(Lit):
    def __init__(self, hparams: Namespace): super().__init__(Net(hparams.width), lr=hparams.optim.lr)


class Cli(Lit):
    def __init__(self, net: dict, optimizer: dict | None = None):
        module, _, name = net["class_path"].rpartition(".")
        super().__init__(getattr(importlib.import_module(module), name)(**net["init_args"]))


class InInit(Lit):
    def __init__(self, encoder, heads, optimizer=None, **kwargs):
        from hydra.utils import instantiate
        super().__init__(nn.Sequential(instantiate(encoder), *[instantiate(head) for head in heads]))
        self.optimizer = optimizer
    def configure_optimizers(self):
        from hydra.utils import instantiate
        return instantiate(self.optimizer, params=self.parameters())


@dataclass(eq=False)
class DataLit(Lit):
    width: int = 4
    lr: float = 0.1
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    note: InitVar[str | None] = None
    done: bool = field(default=False, init=False)
    def __post_init__(self, note): Lit.__init__(self, Net(self.width), lr=self.lr)


@dataclass(frozen=True)
class Optim:
    lr: float = 0.1
    wd: float = 0


@dataclass(frozen=True)
class AdamOptim(Optim):
    betas: tuple[float, float] = (0.9, 0.99)
    def make(self, params): return torch.optim.Adam(params, lr=self.lr, betas=self.betas)


class Sched(NamedTuple):
    name: str = "cosine"
    t_max: int = 3


class BaseModel:
    def __init__(self, **data): vars(self).update(data)


class Settings(BaseModel):
    lr: float = 0.1
    def make(self, params): return torch.optim.SGD(params, lr=self.lr)


def define(cls): return dataclass(cls)


@define
class Defined:
    lr: float = 0.1
    def make(self, params): return torch.optim.SGD(params, lr=self.lr)


class Spec(Lit):
    def __init__(self, optim: Optim, sched: Sched | None = None, width=4):
        super().__init__(Net(width))
        self.optim = optim
    def configure_optimizers(self): return self.optim.make(self.parameters())


@MODELS.register("reg")
class Registered(Lit):
    def __init__(self, width, **kwargs): super().__init__(Net(width), **kwargs)


class MyTrainer(Trainer):
    def __init__(self, *args, note: str = "", **kwargs): super().__init__(*args, **kwargs)


class Data(LightningDataModule):
    def __init__(self, *, batch_size: int = 4, n: int | float = 32, tf: Callable | list[Callable] | None = None,
                 loader: Callable[..., DataLoader] = DataLoader, splits: dict[str, float] | None = None,
                 num_classes=10, **loader_kwargs):
        super().__init__()
        self.make, self.kwargs = loader, dict(batch_size=batch_size, **loader_kwargs)
    def _loader(self): return self.make(TensorDataset(torch.randn(32, 16), torch.randint(0, 4, (32,))), **self.kwargs)
    def train_dataloader(self): return self._loader()
    def val_dataloader(self): return self._loader()


def scale(x, by): return x * by


class Every(Callback):
    def __init__(self, n: int | None = None, on: set[str] | None = None, fn: Callable[..., Any] | None = None): ...


def __getattr__(name):
    if name == "LazyNet":
        return Net
    raise AttributeError(name)
"""
IDIOM_FILES = {
    "idioms.py": IDIOM_CODE,
    "star/__init__.py": "from .inner import *\n",
    "star/inner.py": "from ..idioms import Net, Plain\n__all__ = ['Net', 'Starred']\nclass Starred(Net): pass\n",
}

_ = "owncode.idioms."
DATA = f"data: {{_target_: {_}Data}}\n"


def _lit(name: str, arguments: str, rest: str = "") -> str:
    return f"{DATA}model: {{_target_: {_}{name}, {arguments}}}\n{rest}"


def _net(name: str, arguments: str = "width: 3") -> str:
    return f"net: {{_target_: {_}{name}, {arguments}}}"


ACT = "{_target_: hydra.utils.get_class, path: torch.nn.GELU}"
IDIOMS = {
    "mixins, a constructor with wraps": _lit("Mixed", f"log_every: 2, decay: 0.5, lr: 0.1, {_net('Wrapped')}"),
    "a metaclass that takes an argument": _lit("Lit", _net("Noted", "width: 3, note: x")),
    "a metaclass of the base": _lit("Lit", _net("NotedToo", "width: 3, note: x")),
    "__new__ that makes another object": _lit("Lit", _net("Chosen", "kind: b, width: 3")),
    "an inner class": _lit("Lit", _net("Nested.Inner")),
    "a static method": _lit("Lit", _net("Nested.build", "width: null")),
    "a class method with a TypedDict": _lit("Lit", _net("Nested.from_config", "cfg: {width: 3, more: 3}")),
    "a partial object": _lit("Lit", _net("small")),
    "a lambda": _lit("Lit", _net("tiny")),
    "an object that is called": _lit("Lit", _net("build")),
    "a cached function": _lit("Lit", _net("cached")),
    "a decorator with ParamSpec": _lit("Lit", _net("make", f"width: 3, depth: 4, act: {ACT}")),
    "overloads": _lit("Lit", _net("Over", "width: [3, 4], depth: 2")),
    "positional only": _lit("Lit", _net("Positional", "_args_: [3], act: relu")),
    "annotations": _lit(
        "Lit",
        _net("Typed", f"dims: [3, 4], act: RELU, drop: 1, norm: {{_target_: {_}Norm, eps: 1}}, layer: {ACT}, "
             "root: /tmp, sizes: [1], names: [a], any_of: [[1, 2], [0.5]]"),
    ),
    "a module's __getattr__": _lit("Lit", _net("LazyNet")),
    "a star import": _lit("Lit", "net: {_target_: owncode.star.Starred, width: 3}"),
    "a generic base": _lit("Concrete", "width: 3, lr: 0.1, target: null"),
    "an abstract base with a TypedDict": _lit("Impl", "cfg: {width: 3}, lr: 1, _convert_: all"),
    "a Namespace": _lit("Hparams", "hparams: {width: 3, optim: {lr: 0.1}}"),
    "class_path and init_args": _lit("Cli", f"net: {{class_path: {_}Net, init_args: {{width: 3}}}}, "
                                     "optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1}}"),
    "instantiate in __init__": _lit("InInit", f"_recursive_: false, encoder: {{_target_: {_}Net}}, heads: "
                                    "[{_target_: torch.nn.Linear, in_features: 10, out_features: 10}], "
                                    "optimizer: {_target_: torch.optim.SGD, lr: 0.1}"),
    "instantiate of the shipped optimizer": _lit("InInit", f"_recursive_: false, encoder: {{_target_: {_}Net}}, "
                                                 "heads: [], optimizer: {_target_: torch.optim.Adam, lr: 0.1}"),
    "a dataclass that is a model": _lit("DataLit", "width: 3, betas: [0.1, 0.2], note: hi"),
    "dataclasses that inherit, a NamedTuple": _lit(
        "Spec", f"optim: {{_target_: {_}AdamOptim, lr: 0.1, wd: 1, betas: [0.9, 0.9]}}, sched: {{_target_: {_}Sched}}"
    ),
    "fields in the manner of pydantic": _lit("Spec", f"optim: {{_target_: {_}Settings, lr: 0.1}}"),
    "fields in the manner of attrs": _lit("Spec", f"optim: {{_target_: {_}Defined, lr: 0.1}}"),
    "a registry": _lit("Registered", "width: 3, lr: 0.3"),
    "a trainer of one's own": _lit("Plain", "width: '3'", f"trainer: {{_target_: {_}MyTrainer, note: x}}\n"),
    "a list of partial functions": (
        f"data: {{_target_: {_}Data, n: 3.5, splits: {{train: 0.5}}, tf: [{{_target_: {_}scale, _partial_: true, "
        "by: 2}, {_target_: torch.nn.Identity}], loader: {_target_: torch.utils.data.DataLoader, _partial_: true, "
        f"shuffle: false}}, drop_last: false}}\nmodel: {{_target_: {_}Plain}}\n"
    ),
    "a set, a partial function": _lit(
        "Plain", "width: 3", f"callbacks: {{n: {{_target_: {_}Every, n: null, 'on': [a], fn: {{_target_: {_}scale, "
        "_partial_: true, by: 2}}}\n"
    ),
}  # fmt: skip
