"""What Hydra refuses with an error of its parser or its recursion is one plain line that shows where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from fulgurite.config.tags import replace_tags
from fulgurite.core.context import ProcessContext, set_context
from fulgurite.validation.composition import explain_composition
from tests.support.compose import compose_raw, findings, with_file

HEADER = "# @package _global_\n"
JARGON = re.compile(r"viable|mismatched|extraneous|expecting|EOF|Exception|token", re.IGNORECASE)

# override, what is said after it
SYNTAX = {
    "experiment=points,": "no value follows the comma after 'points'. Remove the comma, or add a value",
    "data.sizes=[1,,2]": "no value follows the comma after '[1'",
    "trainer.devices=[0,1": "the bracket [ before '0,1' is not closed. Add ] at its end",
    "model.x={a: [1,2}": "the bracket } after '{a: [1,2' closes none. Remove it",
    "model.x={a: 1": "the bracket { before 'a: 1' is not closed. Add } at its end",
    "seed=range(1,3": "the bracket ( before '1,3' is not closed. Add ) at its end",
    "seed=)": "the bracket ) closes none. Remove it",
    'model.name="a': "the quote \" before 'a' is not closed. Add \" at its end",
    "model.x=[it's]": "the quote ' before 's]' is not closed. Add ' at its end",
    "model.name='a'b": "cannot be read. Put a value with special characters in quotes",
    "seed==3": "has two equals signs. Write seed=3",
    "1": "is no <key>=<value>. Put a value with spaces in quotes: 'key=\"a b\"'",
    "~": "has no key. Write <key>=<value>",
    "a b=3": "a key cannot contain ' '",
    "model:lr=3": "a key cannot contain ':'",
    "seed=1#2": "cannot contain '#' after '1'. Put a value with special characters in quotes: 'seed=\"1#2\"'",
    "model.x=[a=b]": "cannot contain '=' after '[a'. Put a value with special characters in quotes",
    "model.x=$(3)": "cannot be read. Put a value with special characters in quotes: 'model.x=\"$(3)\"'",
    "model.x={b}": "a dictionary has pairs: {<name>: <value>}. Write them",
    "model.x={a: 1,b}": "a dictionary has pairs: {<name>: <value>}. Write them",
    "seed=chioce(1,2)": "there is no function 'chioce'. Did you mean 'choice'?",
    "seed=interval(1)": "missing a required argument: 'end'. Correct the arguments",
}


def test_overrides_that_cannot_be_read() -> None:
    lines = findings(*replace_tags([*SYNTAX, "test=false"]))
    assert len(lines) == len(SYNTAX)
    for line, (text, said) in zip(lines, SYNTAX.items(), strict=True):
        assert line.startswith(f"command line: {text}: {said}")
        assert JARGON.search(line) is None


@pytest.mark.parametrize(
    "override",
    ["hydra.sweeper.params={seed: 1}", "hydra.sweeper.params.seed=1", "+hydra.sweeper.params.seed=1"],
)
def test_a_null_dictionary_with_a_type_is_filled_in_a_file(override: str, tmp_path: Path) -> None:
    optuna = "hydra/sweeper=optuna"
    fills = f"command line: {override}: hydra.sweeper.params is null, and the command line cannot fill it. "
    assert findings(optuna, override) == [f"{fills}Set it in a config file"]
    search = HEADER + "hydra: {sweeper: {params: {seed: 'range(1, 3)'}}}\n"
    assert findings(*with_file(tmp_path, "experiment/ours.yaml", search), optuna, "experiment=ours") == []


def test_the_value_of_a_secret_is_not_shown() -> None:
    for line in findings("+logger.x.api_key=={abc", "+vars.password=[abc", "token='abc"):
        assert "abc" not in line
        assert line.endswith("***: cannot be read. Put a value with special characters in quotes")


def test_an_override_is_shown_as_it_was_typed() -> None:
    typed = "tags={b: c}"
    set_context(ProcessContext(argv=["train.py", typed]))
    (line,) = findings(*replace_tags([typed]))
    said = "tags.b=c: a tag is switched on with true and off with false. Write tags.b=true, or the text 'b=c' in a list"
    assert line == f"command line: {typed}: {said}"


@pytest.mark.parametrize("name", ["trainn", "train.yml"])
def test_a_primary_config_that_does_not_exist(name: str) -> None:
    said = f"--config-name={name}: there is no configs/{name}.yaml. Did you mean 'train'?"
    assert findings("seed=1", config_name=name) == [said]


# files of configs/experiment, line of which file, the circle
CIRCLES = {
    "itself": ({"ours": "  - /experiment: ours\n"}, "ours", "experiment/ours -> experiment/ours"),
    "itself, by its name": ({"ours": "  - _self_\n  - ours\n"}, "ours", "experiment/ours -> experiment/ours"),
    "through another": (
        {"ours": "  - base\n", "base": "  - /experiment: [ours]\n"},
        "base",
        "experiment/ours -> experiment/base -> experiment/ours",
    ),
    "below another": ({"ours": "  - base\n", "base": "  - base\n"}, "base", "experiment/base -> experiment/base"),
}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_config_that_includes_itself(name: str, tmp_path: Path) -> None:
    files, guilty, circle = CIRCLES[name]
    search: Sequence[str] = ()
    for file, entries in files.items():
        search = with_file(tmp_path, f"experiment/{file}.yaml", f"{HEADER}defaults:\n{entries}")
    number = 4 if "_self_" in files[guilty] else 3
    place = f"{tmp_path}/experiment/{guilty}.yaml:{number}"
    said = f"{place}: a config cannot include itself: {circle}. Remove the entry"
    assert findings(*search, "experiment=ours") == [said]
    assert findings(*search, "experiment=example,ours") == [said]  # as a job of a sweep is composed


STOPPING = "callbacks: {early_stopping: {_target_: lightning.pytorch.callbacks.EarlyStopping}}"
LISTS = {
    "of callbacks": (
        "callbacks:\n  - _target_: lightning.pytorch.callbacks.EarlyStopping\n    monitor: x\n",
        f"2: callbacks: a list, but each callback is below a name. Write '{STOPPING}'",
    ),
    "in place of no callbacks": (
        "defaults: [override /callbacks: none]\ncallbacks: [{_target_: lightning.pytorch.callbacks.EarlyStopping}]\n",
        f"3: callbacks: a list, but each callback is below a name. Write '{STOPPING}'",
    ),
    "of files": (
        "logger: [csv, comet]\n",
        "2: logger: files of configs/logger are chosen in the defaults list. Write '- override /logger: [csv, comet]'",
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_in_place_of_callbacks_or_loggers_shows_the_form_to_write(name: str, tmp_path: Path) -> None:
    text, said = LISTS[name]
    search = with_file(tmp_path, "experiment/ours.yaml", f"{HEADER}{text}")
    assert findings(*search, "experiment=ours") == [f"{tmp_path}/experiment/ours.yaml:{said}"]


def test_a_list_of_dictionaries_names_no_options() -> None:
    (line,) = findings("callbacks=[{_target_: x}]")
    assert line.endswith("Set other keys one by one: '+callbacks.<name>={_target_: ...}'")
    (line,) = findings("experiment={a: b}")
    assert line.endswith("experiment chooses a file of configs/experiment by name. Write experiment=<name>")


PLACES = {
    "datamodule": "data",
    "dm": "data",
    "lightning_module": "model",
    "network": "model.net",
    "lr_scheduler": "model.scheduler",
    "seed_everything": "seed",
    "max_epochs": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "batch_size": "data.batch_size",
    "lr": "model.optimizer.lr",
    "learning_rate": "model.optimizer.lr",
    "gpus": "trainer.devices",
    "loggers": "logger",
}


def test_keys_that_other_templates_have_at_the_top(tmp_path: Path) -> None:
    text = "".join(f"{name}: {{a: 1}}\n" for name in PLACES)
    lines = findings(*with_file(tmp_path, "experiment/ours.yaml", f"{HEADER}{text}"), "experiment=ours")
    said = [f"{name}: nothing reads this key. Did you mean {place!r}?" for name, place in PLACES.items()]
    assert lines == [f"{tmp_path}/experiment/ours.yaml:{number}: {line}" for number, line in enumerate(said, start=2)]
    said = [f"{name}=3: there is no such key. Did you mean {place!r}?" for name, place in PLACES.items()]
    assert findings(*(f"{name}=3" for name in PLACES)) == [f"command line: {line}" for line in said]


def test_a_key_below_one_of_another_template_has_its_whole_place() -> None:
    (line,) = findings("datamodule.batch_size=3")
    assert line.endswith("there is no such key. Did you mean 'data.batch_size'?")


def test_a_target_without_a_module_is_no_crash() -> None:
    (line,) = findings("model.net._target_=MLP")
    assert line.endswith("there is no package 'MLP'. Install it or correct the name")


def test_an_override_that_a_sweeper_of_hydra_adds_has_a_suggestion() -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        compose_raw("experiment=example", "trainer.max_epoch=3")
    explained = explain_composition(caught.value, ["-m", "experiment=example"])
    assert explained is not None
    assert explained.findings == [
        "command line: trainer.max_epoch=3: there is no such key. Did you mean 'trainer.max_epochs'?"
    ]
