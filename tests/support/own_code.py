"""A package of code as people write it: no house style, odd annotations, factories. Tests write it to a folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fulgurite.validation.signatures import resolve, signature, source

PACKAGE = "owncode"
NETS = '''
from enum import Enum
from functools import wraps
from typing import List, Optional, Tuple, Union
import torch
from torch import nn


class Act(Enum):
    RELU = "relu"
    GELU = "gelu"


class Small(nn.Module):
    def __init__(self, width: int = 8, out: int = 10, act: Act = Act.RELU, dropout=None):
        super().__init__()
        a = nn.ReLU() if Act(act) is Act.RELU else nn.GELU()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), a, nn.Dropout(dropout or 0.0))
        self.head = nn.Linear(width, out)

    def forward(self, x):
        return self.head(self.layers(x))

    @classmethod
    def tiny(cls, out=10):
        return cls(4, out)


class Wide(Small):
    def __init__(self, factor: float = 2.0, **kwargs):
        super().__init__(width=int(8 * factor), **kwargs)


class Blocks(nn.Module):
    def __init__(self, channels: Tuple[int] = (8, 16), kernel: Tuple[int, int] = (3, 3), norm: Optional[str] = None):
        super().__init__()
        sizes = [784, *channels]
        self.net = nn.Sequential(nn.Flatten(), *[nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        self.head = nn.Linear(sizes[-1], 10)

    def forward(self, x):
        return self.head(self.net(x))


class Encoder(nn.Module):
    def __init__(self, dims: List[int] = [784, 16]):
        super().__init__()
        self.out_dim = dims[-1]
        self.net = nn.Sequential(nn.Flatten(), *[nn.Linear(a, b) for a, b in zip(dims, dims[1:])])

    def forward(self, x):
        return self.net(x)


class WithEncoder(nn.Module):
    def __init__(self, encoder: nn.Module, head: Union[nn.Module, None] = None, num_classes: int = 10):
        super().__init__()
        self.encoder = encoder
        self.head = head or nn.Linear(encoder.out_dim, num_classes)

    def forward(self, x):
        return self.head(self.encoder(x))


def create_model(model_name: str, pretrained: bool = False, **kwargs):
    """Like timm's."""
    return {"small": Small, "wide": Wide}[model_name](**kwargs)


def register(function):
    REGISTRY[function.__name__] = function
    return function


REGISTRY = {}


@register
def registered_small(width=8, num_classes=10):
    return Small(width, num_classes)


def cosine(optimizer, warmup: int = 5, total: int = 100):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))


def make_optimizer(name: str = "sgd", lr: float = 0.1):
    return lambda params: torch.optim.SGD(params, lr=lr)


class Block(nn.Module):
    def __init__(self, x):
        super().__init__()


def outer():
    class Block(Block):
        pass
    return Block
'''
FILES = {"__init__.py": "", "nets.py": NETS}


def forget_sources() -> None:
    """Clear what the checks remember of sources."""
    importlib.invalidate_caches()
    for cached in (source.find_module, resolve.lookup, signature.read_signature):
        cached.cache_clear()


@contextmanager
def own_package(folder: Path) -> Iterator[None]:
    """Write the package into a folder and put that on the path."""
    for name, text in FILES.items():
        file = folder / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    sys.path.insert(0, str(folder))
    forget_sources()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        forget_sources()
