"""A package of code as people write it: no house style, odd annotations, factories. Tests write it to a folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fulgurite.validation.signatures import resolve, signature, source
from tests.support.own_idioms import IDIOM_FILES

PACKAGE = "owncode"
NETS = '''
from enum import Enum
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
        self.net = nn.Sequential(nn.Flatten(), *[nn.LazyLinear(size) for size in channels])
        self.head = nn.LazyLinear(10)

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


class MakeSGD:
    def __init__(self, lr):
        self.lr = lr

    def __call__(self, params):
        return torch.optim.SGD(params, lr=self.lr)


def make_optimizer(name: str = "sgd", lr: float = 0.1):
    return MakeSGD(lr)


from torch.nn import Linear


class Linear(Linear):
    def __init__(self, width=10, **kwargs):
        super().__init__(16, width, **kwargs)
'''
DATA = """
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split


class Noise:
    def __init__(self, std: int = 0.1):
        self.std = std

    def __call__(self, x):
        return x + self.std * torch.randn_like(x)


class Scale:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by


class Compose:
    def __init__(self, transforms: List[Callable]):
        self.transforms = transforms

    def __call__(self, x):
        for t in self.transforms:
            x = t(x)
        return x


class Points(Dataset):
    def __init__(self, n=32, seed=0, transform: Optional[Callable] = None):
        g = torch.Generator().manual_seed(seed)
        self.y = torch.randint(0, 4, (n,), generator=g)
        self.x = torch.randn(n, 16, generator=g)
        self.transform = transform

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        x = self.x[i]
        return (self.transform(x) if self.transform else x), self.y[i]


class PointsData(LightningDataModule):
    def __init__(
        self,
        data_dir: str = "data/",
        train_val_test_split: Tuple[int, int, int] = (20, 6, 6),
        batch_size: int = 4,
        num_workers: int = 0,
        pin_memory: bool = False,
        transforms: Optional[Callable] = None,
        n: int = 32,
        num_classes: int = 10,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["transforms"])
        self.data = Points(n, transform=transforms)

    def setup(self, stage: Optional[str] = None):
        split = self.hparams.train_val_test_split
        if all(isinstance(s, float) for s in split):
            split = [int(s * len(self.data)) for s in split]
            split[0] += len(self.data) - sum(split)
        self.train, self.val, self.test = random_split(self.data, split)

    def _loader(self, data):
        return DataLoader(data, self.hparams.batch_size, num_workers=self.hparams.num_workers or 0)

    def train_dataloader(self):
        return self._loader(self.train)

    def val_dataloader(self):
        return self._loader(self.val)

    def test_dataloader(self):
        return self._loader(self.test)


class FolderData(PointsData):
    def __init__(self, root: Path = Path("."), fold=0, folds: List[int] = 5, **kwargs):
        super().__init__(data_dir=str(root), **kwargs)


class LoaderData(LightningDataModule):
    def __init__(self, train: DataLoader, val: Union[DataLoader, None] = None, num_classes: int = 10, **_):
        super().__init__()
        self.train, self.val = train, val

    def train_dataloader(self):
        return self.train

    def val_dataloader(self):
        return self.val

    def test_dataloader(self):
        return self.val


class CfgData(PointsData):
    def __init__(self, cfg: Dict[str, Any], num_workers: int = None, num_classes=10):
        super().__init__(batch_size=cfg.batch_size, n=cfg["size"]["n"])
        assert cfg.size.n == 32


def make_data(cfg=None, **overrides):
    return PointsData(**{**(cfg or {}), **overrides})
"""
LIT = """
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Literal, Optional, Tuple, Union
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F


class Lit(LightningModule):
    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer = None, scheduler=None, lr: int = 0.01,
                 loss: Callable = F.cross_entropy, compile: bool = False):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net", "loss"])
        self.net, self.loss = net, loss

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = self.loss(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.loss(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        make, lr = self.hparams.optimizer, self.hparams.get("lr")
        optimizer = make(self.parameters()) if make else torch.optim.SGD(self.parameters(), lr=lr)
        if self.hparams.scheduler is None:
            return optimizer
        scheduler = self.hparams.scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


class Plain(Lit):
    def __init__(self, width: int = 8, lr: float = 1e-2, hidden_dims: Tuple[int] = (8, 8), activation: str = "relu",
                 betas: Tuple[float, float] = (0.9, 0.999), dropout: float = None, steps: List[int] = 10):
        super().__init__(nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 10)), lr=lr)


class FromCfg(Lit):
    def __init__(self, cfg, num_classes=10):
        super().__init__(nn.Sequential(nn.Linear(16, cfg.net.width), nn.ReLU(), nn.Linear(cfg["net"]["width"], 10)))
        self.cfg = cfg
        assert cfg.optim.lr == cfg["optim"]["lr"]


class Lazy(Lit):
    def __init__(self, net_cfg, optimizer_cfg=None):
        import hydra
        super().__init__(hydra.utils.instantiate(net_cfg))
        assert net_cfg.width == net_cfg["width"]


@dataclass
class OptimConfig:
    lr: float = 0.1
    betas: List[float] = field(default_factory=lambda: [0.9, 0.99])


class WithDataclass(Lit):
    def __init__(self, net: nn.Module, optim: OptimConfig = OptimConfig(), weights: Union[List[float], None] = None,
                 mode: Literal["fast", "slow"] = "fast"):
        super().__init__(net, lr=optim.lr)


class Kwargs(Lit):
    def __init__(self, *args, **kwargs):
        self.extra = kwargs.pop("extra", None)
        super().__init__(*args, **kwargs)


class Anything(Lit):
    def __init__(self, **hparams):
        super().__init__(nn.Sequential(nn.Linear(16, hparams["width"]), nn.Linear(hparams["width"], 10)))


class SmoothLoss(nn.Module):
    def __init__(self, smoothing: int = 0.0, weight: List[float] = None):
        super().__init__()
        self.loss = nn.CrossEntropyLoss(label_smoothing=smoothing)

    def forward(self, scores, labels):
        return self.loss(scores, labels)


def build_lit(name: str, width: int = 8, **kwargs):
    return Plain(width=width, **kwargs)


def cosine(optimizer, warmup: int = 5):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))


class Warmup(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer, warmup_steps: int = 4, last_epoch: int = -1):
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [lr * min(1.0, (self._step_count + 1) / self.warmup_steps) for lr in self.base_lrs]


class MySGD(torch.optim.SGD):
    def __init__(self, params, lr: int = 0.1, **kwargs):
        super().__init__(params, lr=lr, **kwargs)
"""
CALLBACKS = """
from typing import List, Optional, Union
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger


class Print(Callback):
    def __init__(self, every: int = None, names: Optional[List] = None, where: str = 3):
        self.every = every


class Best(ModelCheckpoint):
    def __init__(self, note: str = "", **kwargs):
        super().__init__(**kwargs)


class Settings(Callback):
    def __init__(self, cfg: dict):
        self.interval = cfg.interval


class Quiet(Logger):
    def __init__(self, save_dir: str = ".", tags: List[str] = ()):
        super().__init__()

    name = "quiet"
    version = 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def make_callback(kind: str = "print", **kwargs):
    return Print(**kwargs)
"""
FILES = {"__init__.py": "", "nets.py": NETS, "data.py": DATA, "lit.py": LIT, "callbacks.py": CALLBACKS, **IDIOM_FILES}


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
