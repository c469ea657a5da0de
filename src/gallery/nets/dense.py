"""Linear models and multilayer perceptrons, chapters 3 and 4 of the book."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from src.gallery.nets.init import normal_


class MLP(nn.Sequential):
    """Dense layers with ReLU and dropout between them; without hidden layers, a linear model.

    Sections 3.3 (linear regression), 3.7 (softmax regression), 4.3 and 4.6. For Fashion-MNIST:

    | hidden_sizes | parameters |
    |---|---|
    | none (softmax regression) | 7,850 |
    | 256 | 203,530 |
    | 256, 256 | 269,322 |

    Args:
        input_size: Values per example, after flattening.
        output_size: Values per prediction.
        hidden_sizes: Width of each hidden layer.
        dropout: Probability that a hidden value is zeroed, for each hidden layer. Empty uses none.
        bias: Add a bias in each layer.
        init_std: Standard deviation of the initial weights. None keeps the default of torch.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_sizes: Sequence[int] = (),
        dropout: Sequence[float] = (),
        bias: bool = True,
        init_std: float | None = 0.01,
    ) -> None:
        stages: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        if dropout and len(dropout) != len(hidden_sizes):
            raise ValueError(f"dropout={list(dropout)}: {len(hidden_sizes)} hidden layers need one probability each.")
        sizes = [input_size, *hidden_sizes]
        for position, (size_in, size_out) in enumerate(pairwise(sizes)):
            layers: list[nn.Module] = [nn.Linear(size_in, size_out, bias=bias), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout[position]))
            stages[f"hidden{position + 1}"] = nn.Sequential(*layers)
        stages["output"] = nn.Linear(sizes[-1], output_size, bias=bias)
        super().__init__(stages)
        if init_std is not None:
            normal_(self, init_std)
