"""Mistakes in defaults lists, and in overrides that choose groups, are named with their line and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite import compose
from tests.support.compose import findings, with_file

HEADER = "# @package _global_\n"
UNLISTED = "net is not in the defaults list. Write "
ENTRY = f"{UNLISTED}'- /net@model.net: small', above the entries with override"
DASH = "defaults is a list. Begin each entry with a dash, e.g. '- override /data: mnist'"
SLASH = "a group of another folder needs a slash. Write "
# text of an experiment, line that is named, what is said
ENTRIES = [
    (f"{HEADER}defaults:\n  - override /net: small\n", 3, ENTRY),
    (f"{HEADER}defaults:\n  - override net: small\n", 3, ENTRY),
    (f"{HEADER}defaults:\n  - override /net@model.net: small\n", 3, ENTRY),
    (
        f"{HEADER}defaults:\n  - override /data: mnist\n  - /net@model.net: small\n",
        4,
        "an entry without override stands below one with override. Put it above the overrides",
    ),
    *(
        (f"{HEADER}defaults:\n  - {entry}\n", 3, f"comes after experiment in the defaults list. Write '{right}', above")
        for entry, right in [
            ("override /optimizer: adam", "- /optimizer@model.optimizer: adam"),
            ("/optimizer: adam", "- /optimizer@model.optimizer: adam"),
            ("optimizer: adam", "- /optimizer@model.optimizer: adam"),
            ("override /optimizer@model.optimizer: adam", "- /optimizer@model.optimizer: adam"),
            ("override /scheduler: cosine", "- /scheduler@model: cosine"),
            ("override /debug: fdr", "- /debug@_global_: fdr"),
        ]
    ),
    (f"{HEADER}defaults:\n  - data: mnist\n", 3, f"{SLASH}'- override /data: mnist'"),
    (f"{HEADER}defaults:\n  - net: small\n", 3, f"{SLASH}'- /net@model.net: small'"),
    (f"{HEADER}defaults:\n  override /data: mnist\n", 2, DASH),
    (f"{HEADER}seed: 3\ndefaults:\n  data: mnist\n", 3, DASH),
    ("# @package global\nseed: 3\n", 1, "write '# @package _global_'"),
    ("# @package _globl_\nseed: 3\n", 1, "write '# @package _global_'"),
    ("# @package global\ndefaults:\n  - override /data: mnist\n", 1, "Write '# @package _global_'"),
]


@pytest.fixture
def net(tmp_path: Path) -> list[str]:
    """Return the override that makes a group `net` known."""
    return [*with_file(tmp_path, "net/small.yaml", "_target_: src.models.nets.dense.SimpleDenseNet\nlin1_size: 8\n")]


@pytest.mark.parametrize(("text", "number", "said"), ENTRIES)
def test_an_entry_that_is_wrong(text: str, number: int, said: str, tmp_path: Path, net: list[str]) -> None:
    with_file(tmp_path, "experiment/ours.yaml", text)
    (line,) = findings(*net, "experiment=ours")
    assert line.startswith(f"{tmp_path}/experiment/ours.yaml:{number}: ")
    assert said in line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("net=small", f"{UNLISTED}+net@model.net=small"),
        ("+experiment=example", "experiment is in the defaults list already. Write experiment=example"),
    ],
)
def test_a_group_chosen_in_the_wrong_way(override: str, said: str, net: list[str]) -> None:
    assert findings(*net, override) == [f"command line: {override}: {said}"]


def test_what_the_messages_say_to_write_composes(tmp_path: Path, net: list[str]) -> None:
    text = f"{HEADER}defaults:\n  - /net@model.net: small\n  - override /data: mnist\n"
    with_file(tmp_path, "experiment/ours.yaml", text)
    assert findings(*net, "experiment=ours") == []
    assert findings(*net, "+net@model.net=small") == []


def test_an_experiment_chooses_its_optimizer_and_schedule(tmp_path: Path) -> None:
    entries = ["/optimizer@model.optimizer: yogi", "/scheduler@model: cosine", "override /data: mnist"]
    text = f"{HEADER}defaults:\n" + "".join(f"  - {entry}\n" for entry in entries)
    options = with_file(tmp_path, "experiment/ours.yaml", f"{text}model: {{optimizer: {{lr: 0.5}}}}\n")
    optimizer = compose([*options, "experiment=ours"]).model.optimizer
    assert (optimizer._target_, optimizer.lr) == ("src.models.optimizers.Yogi", 0.5)
    optimizer = compose([*options, "experiment=ours", "optimizer=rmsprop"]).model.optimizer
    assert (optimizer._target_, optimizer.lr) == ("torch.optim.RMSprop", 0.01)
    assert findings(*options, "experiment=ours", "optimizer=rmsprop") == []
