"""The limit: a plain PyTorch loop over tensors in memory, with the same metrics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scripts.bench.images import BATCH_SIZE

Arrays = tuple[Tensor, Tensor]  # images [N, 1, 28, 28] float32 normalised, labels [N] int64


def train_epoch(
    net: nn.Module, train: Arrays, val: Arrays, now: Callable[[], float]
) -> tuple[list[float], dict[str, float]]:
    """Train a net for one shuffled epoch, then validate it.

    Args:
        net: Maps images to scores; trained in place.
        train: Images and labels to train on.
        val: Images and labels to validate on.
        now: Clock, in seconds.

    Returns:
        The time after each step and loss and accuracy of both sets.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    stamps = []
    net.train()
    for rows in torch.split(torch.randperm(len(train[1])), BATCH_SIZE):
        images, labels = train[0].index_select(0, rows), train[1].index_select(0, rows)
        scores = net(images)
        loss = cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
        optimizer.step()
        loss_sum += loss.detach() * len(labels)
        correct += (scores.argmax(1) == labels).sum()
        stamps.append(now())
    results = _means("train", loss_sum, correct, len(train[1]))
    return stamps, results | _validate(net, val)


@torch.no_grad()
def _validate(net: nn.Module, val: Arrays) -> dict[str, float]:
    loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    net.eval()
    for images, labels in zip(torch.split(val[0], BATCH_SIZE), torch.split(val[1], BATCH_SIZE), strict=True):
        scores = net(images)
        loss_sum += cross_entropy(scores, labels) * len(labels)
        correct += (scores.argmax(1) == labels).sum()
    return _means("val", loss_sum, correct, len(val[1]))


def _means(split: str, loss_sum: Tensor, correct: Tensor, count: int) -> dict[str, float]:
    return {f"{split}/loss": float(loss_sum) / count, f"{split}/acc": float(correct) / count}
