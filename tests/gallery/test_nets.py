"""The nets of the gallery have the shapes and sizes that their docstrings state."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from src.gallery.nets.alexnet import AlexNet
from src.gallery.nets.attention import AdditiveAttention, MultiHeadAttention, NadarayaWatson, masked_softmax
from src.gallery.nets.dense import MLP
from src.gallery.nets.densenet import DenseNet
from src.gallery.nets.googlenet import GoogLeNet
from src.gallery.nets.lenet import BatchNormLeNet, LeNet, ParallelLeNet
from src.gallery.nets.nin import NiN
from src.gallery.nets.recurrent import RecurrentLM
from src.gallery.nets.resnet import ResNet18
from src.gallery.nets.transformer import PositionalEncoding, Transformer
from src.gallery.nets.translation import BahdanauSeq2Seq, GRUSeq2Seq
from src.gallery.nets.vgg import VGG

# net, pixels, parameters; the shapes are those of the table in its docstring
IMAGE_NETS: list[tuple[Callable[[], nn.Sequential], int, int]] = [
    (LeNet, 28, 61_706),
    (lambda: LeNet("modern"), 28, 61_706),
    (BatchNormLeNet, 28, 44_878),
    (ParallelLeNet, 28, 129_068),
    (AlexNet, 224, 46_764_746),
    (VGG, 224, 43_093_322),
    (NiN, 224, 1_992_166),
    (GoogLeNet, 96, 5_977_530),
    (ResNet18, 96, 11_178_378),
    (DenseNet, 96, 758_226),
]


def stated(net: nn.Module) -> dict[str, list[int]]:
    """Return the shape of each stage in the docstring's table, without the batch; classes count as 10."""
    found = {}
    for stages, shape in re.findall(r"\| ([\w, ]+) \| `\[B, ([^]]+)\]` \|", type(net).__doc__ or ""):
        sizes = [int(size) for size in shape.replace("num_classes", "10").split(", ")]
        found.update({stage.strip(): sizes for stage in stages.split(",")})
    return found


@pytest.mark.parametrize(
    ("make", "pixels", "parameters"), IMAGE_NETS, ids=lambda value: getattr(value, "__name__", None)
)
def test_image_nets_have_the_stated_stages_and_size(
    make: Callable[[], nn.Sequential], pixels: int, parameters: int
) -> None:
    net = make().eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert f"{parameters:,}" in (type(net).__doc__ or "")
    x, shapes = torch.randn(1, 1, pixels, pixels), {}
    with torch.no_grad():
        for name, stage in net.named_children():
            x = stage(x)
            shapes[name] = list(x.shape[1:])
    assert shapes == (stated(net) or shapes)
    assert shapes["output"] == [10]


def test_a_small_stem_keeps_the_size_of_the_image() -> None:
    net = ResNet18("small").eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == 11_175_818
    stem: nn.Module = net.get_submodule("stem")
    assert stem(torch.randn(1, 1, 28, 28)).shape == (1, 64, 28, 28)


@pytest.mark.parametrize(("hidden", "parameters"), [((), 7_850), ((256,), 203_530), ((256, 256), 269_322)])
def test_dense_nets_have_the_stated_size(hidden: tuple[int, ...], parameters: int) -> None:
    net = MLP(784, 10, hidden, [0.5] * len(hidden))
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert net(torch.randn(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize(("cell", "parameters"), [("rnn", 80_412), ("gru", 226_844), ("lstm", 300_060)])
def test_a_state_continues_a_text(cell: str, parameters: int) -> None:
    net = RecurrentLM(28, cell)  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    tokens = torch.randint(28, (2, 10))
    whole, _ = net(tokens)
    first, state = net(tokens[:, :4])
    second, _ = net(tokens[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    assert whole.shape == (2, 10, 28)


def test_each_hidden_layer_needs_a_dropout() -> None:
    with pytest.raises(ValueError, match=r"^dropout=\[0.5\]: 2 hidden layers need one probability each.$"):
        MLP(4, 2, [8, 8], dropout=[0.5])


def test_masked_weights_are_zero_and_rows_sum_to_one() -> None:
    weights = masked_softmax(torch.randn(2, 3, 4), torch.tensor([2, 4]))
    assert (weights[0, :, 2:] == 0).all()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 3))
    each = masked_softmax(torch.randn(1, 3, 3), torch.tensor([[1, 2, 3]]))
    assert (each[0].triu(1) == 0).all()


def test_kernel_regression_takes_the_nearest_value_when_it_is_narrow() -> None:
    net = NadarayaWatson()
    nn.init.constant_(net.inverse_width, 100.0)
    predicted = net(torch.tensor([[1.1]]), torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[5.0, 7.0, 9.0]]))
    assert predicted.tolist() == [[7.0]]


def test_attention_has_the_stated_shapes() -> None:
    output, weights = AdditiveAttention(5, 6, 8)(torch.randn(2, 3, 5), torch.randn(2, 4, 6), torch.randn(2, 4, 7))
    assert (output.shape, weights.shape) == ((2, 3, 7), (2, 3, 4))
    output, weights = MultiHeadAttention(8, 2)(torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.tensor([1, 4]))
    assert (output.shape, weights.shape) == ((2, 3, 8), (2, 2, 3, 4))
    assert (weights[0, :, :, 1:] == 0).all()


def test_multi_head_attention_is_that_of_torch() -> None:
    ours, theirs = MultiHeadAttention(8, 2), nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.out_proj.weight.copy_(ours.output.weight)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    expected, _ = theirs(x, memory, memory)
    torch.testing.assert_close(ours(x, memory)[0], expected)


def test_positions_are_sines_and_cosines() -> None:
    encoded = PositionalEncoding(4)(torch.zeros(1, 3, 4))[0, 2]
    two = torch.tensor(2.0)
    expected = torch.stack([two.sin(), two.cos(), (two / 100).sin(), (two / 100).cos()])
    torch.testing.assert_close(encoded, expected)


@pytest.mark.parametrize("make", [GRUSeq2Seq, BahdanauSeq2Seq, Transformer])
def test_a_step_scores_what_teacher_forcing_does(make: Callable[[int, int], nn.Module]) -> None:
    net = make(11, 13).eval()
    source, lengths, target = torch.randint(11, (2, 5)), torch.tensor([3, 5]), torch.randint(13, (2, 4))
    scores = net(source, lengths, target)
    assert scores.shape == (2, 4, 13)
    state = net.start(source, lengths)  # type: ignore[operator]
    for position in range(4):
        step, state = net.step(target[:, : position + 1], state)  # type: ignore[operator]
        torch.testing.assert_close(step, scores[:, position])
    if hasattr(net, "attention_weights"):
        net(source, lengths, target)
        weights = net.attention_weights
        assert isinstance(weights, torch.Tensor)
        assert weights.shape == (2, 4, 5)
        assert (weights[0, :, 3:] == 0).all()
