"""No secret leaves a process, by whatever route it comes into the config."""

from __future__ import annotations

import html
import io
import json
import logging
import pickle
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from fulgurite.checkpoints.plain import plain_hyperparameters
from fulgurite.config.compose import compose
from fulgurite.core import redact
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import (
    hide_secrets,
    holds_secret,
    mask_config,
    mask_override,
    register_secret,
    saved_config,
    without_secrets,
)
from fulgurite.engine.outcome import Outcome
from fulgurite.engine.saved_run import load_run
from fulgurite.reporting.best_config import experiment_text
from fulgurite.resume.config_diff import diff_configs
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.search.space import read_space
from fulgurite.shutdown.signals import IgnoreInWorker
from fulgurite.sources.secrets import read_secret
from fulgurite.trust.secrets import guard_output, watch_secrets
from tests.support.cli import run_cli
from tests.support.compose import with_file

CANARY = "CANARY"
# how a secret comes into a config: the overrides, and the secret as the config holds it
ROUTES = {
    "variable": (["+note=${oc.env:CANARY_TOKEN}"], "CANARY-variable-1"),
    "part of a text": (["+note='Bearer ${oc.env:CANARY_TOKEN}'"], "CANARY-variable-1"),
    "variable with an ordinary name": (["+note=${oc.env:CANARY_PLAIN}"], "CANARY-plain-2"),
    "resolver": (["+note=${secret:CANARY_SECRET}"], 'CANARY "se\'cret" 3'),
    "typed": (["+a.api_key=CANARY-typed-4"], "CANARY-typed-4"),
    "typed below a list": (["+a=[{password:CANARY-listed-5}]"], "CANARY-listed-5"),
    "file": (["experiment=secret"], "CANARY-file-6"),
    "URL": (["+a.url=postgresql://me:CANARY-url-7@db/x"], "CANARY-url-7"),  # pragma: allowlist secret
    "name that is computed": (["+part=TOKEN", "+note='${oc.env:CANARY_${part}}'"], "CANARY-variable-1"),
}


@pytest.fixture(autouse=True)
def _new_secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Know no secret, as a new process does, and restore the streams."""
    secrets = redact._KnownSecrets()
    monkeypatch.setattr(redact, "known_secrets", secrets)
    monkeypatch.setattr("fulgurite.trust.secrets.known_secrets", secrets)
    streams, plain = (sys.stdout, sys.stderr), logging.Handler.format
    for name, value in (("TOKEN", "CANARY-variable-1"), ("PLAIN", "CANARY-plain-2"), ("SECRET", 'CANARY "se\'cret" 3')):
        monkeypatch.setenv(f"CANARY_{name}", value)
    yield
    sys.stdout, sys.stderr = streams
    logging.Handler.format = plain  # type: ignore[method-assign]


@pytest.mark.parametrize(("overrides", "secret"), ROUTES.values(), ids=ROUTES)
def test_a_secret_is_hidden_in_all_text_from_the_composition_on(
    overrides: list[str], secret: str, tmp_path: Path
) -> None:
    text = "# @package _global_\na: {api_key: CANARY-file-6}\n"
    cfg = compose([*with_file(tmp_path, "experiment/secret.yaml", text), *overrides], output_dir=tmp_path)
    OmegaConf.to_container(cfg, resolve=True)
    for written in (secret, json.dumps([secret]), repr({"a": secret}), f"x{secret}y", str(RuntimeError(secret))):
        assert CANARY not in hide_secrets(written)
        assert "***" in hide_secrets(written)
    assert CANARY not in str(mask_config(cfg)).replace("CANARY_", "")
    assert CANARY not in saved_config(cfg).replace("CANARY_", "")
    assert CANARY not in " ".join(map(mask_override, overrides)).replace("CANARY_", "")


ODD = "CANARY-é'\" x & y\nCANARY-2"
WRITTEN: list[Callable[[str], str]] = [
    yaml.dump,
    lambda text: yaml.dump({"a": {"b": text}}, allow_unicode=True, default_style="|"),
    lambda text: yaml.dump([text], default_style="'"),
    lambda text: yaml.dump([text], default_style='"', width=10),
    json.dumps,
    lambda text: json.dumps(json.dumps(text, ensure_ascii=False)),
    lambda text: repr([repr(text)]),
    ascii,
    lambda text: repr(text.encode()),
    lambda text: text.encode("ascii", "backslashreplace").decode(),
    lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    lambda text: '"' + text.replace('"', '""') + '"',
    shlex.quote,
    html.escape,
    quote,
    quote_plus,
]


@pytest.mark.parametrize("write", WRITTEN)
def test_a_secret_is_hidden_in_every_notation(write: Callable[[str], str]) -> None:
    register_secret(ODD)
    assert CANARY not in hide_secrets(write(ODD))
    register_secret("ab12\ncd34")  # short lines
    assert "cd34" not in hide_secrets(write("ab12\ncd34"))


@pytest.mark.parametrize("secret", ["CANARY-é'\"-\\", "\\\\\\\\ééé", "\U0001f600" * 9])
def test_a_text_of_backslashes_takes_no_time_without_end(secret: str) -> None:
    register_secret(secret)
    assert hide_secrets("\\" * 2_000 + "u") == "\\" * 2_000 + "u"  # each more one took a cubic time


@pytest.mark.parametrize("part", ["~!@#é", "'", '"', "\\", "a'"])
def test_a_text_that_ends_within_a_secret_takes_no_time_without_end(part: str) -> None:
    def end(*_: object) -> None:
        pytest.fail("each sign takes twice the time of the one before")

    register_secret(part * 50)
    text = part * 45 + "x" * 250
    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, 20)  # of the processor: one text takes less than a millisecond
    try:
        assert hide_secrets(text) == text
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:CAN@RY-CANARY@db/x",  # pragma: allowlist secret
        "postgresql://me:a/CANARY@db/x",  # pragma: allowlist secret
        "https://ghp_CANARYabcdefgh123@github.com/x",
        "https://h/x?v=1&access_token=CANARY",
        "Server=h;Password=CANARY;x=1",  # pragma: allowlist secret
    ],
)
def test_every_secret_in_a_url_is_hidden(url: str) -> None:
    redact.register_config({"url": url})
    assert CANARY not in str(without_secrets({"url": url}))
    assert CANARY not in mask_override(f"+url={url}")


@pytest.mark.parametrize("url", ["http://h:5000/v1@x", "https://me@github.com/x", "s3://bucket/a?key=3&n=2"])
def test_a_url_without_a_secret_is_shown(url: str) -> None:
    assert without_secrets({"url": url}) == {"url": url}


@pytest.mark.parametrize("override", ["+a={password: abc, n: 1}", "+a=[{'password':'abc'}]", "+a={x:{api_key:abc}}"])
def test_a_nested_override_is_masked_by_its_key(override: str) -> None:
    assert mask_override(override, certain=True) == override.replace("'abc'", "abc").replace("abc", "***")


def test_a_nested_override_is_known_before_it_is_parsed() -> None:
    redact.register_override("+a={api_key: CANARY-typed, x: [")
    assert hide_secrets("in CANARY-typed") == "in ***"


def test_a_number_from_the_environment_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    redact.register_variable("PIN_TOKEN", "73518264")
    assert without_secrets({"pin": 73518264, "n": 73518265}) == {"pin": "***", "n": 73518265}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokenizer.pad_token", "<|endoftext|>"),
        ("tokenizer.eos_token", "[SEPARATOR]"),
        ("sort_key", "num_examples"),
        ("data.key", "layers.11.attention.output"),
        ("model.auth", "none"),
        ("model.num_tokens", "50257"),
        ("logger.api_key", "${oc.env:COMET_API_KEY,null}"),
        ("logger.api_key", ""),
    ],
)
def test_an_ordinary_value_is_no_secret(key: str, value: str) -> None:
    assert not holds_secret(key, value)


@pytest.mark.parametrize("key", ["data.max_tokens", "val_tokens", "model.num_keys", "maxTokens", "max_new_tokens"])
def test_a_count_of_tokens_is_shown(key: str) -> None:
    assert redact.mask_override(f"{key}=1000,2000") == f"{key}=1000,2000"
    assert redact.mask_override(f"{key}=hf_AbCdEfGhIjKlMnOp") == f"{key}=***"


@pytest.mark.parametrize("key", ["tokens", "api_tokens", "maxApiTokens", "num_access_tokens", "key"])
def test_a_value_of_a_key_that_may_be_secret_is_not_shown(key: str) -> None:
    assert redact.mask_override(f"{key}=abc") == f"{key}=***"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger.comet.api_key", "abc"),
        ("apiKey", "abc"),
        ("db.password", "hunter2"),
        ("aws_secret_access_key", "x"),
        ("hf_token", "hello"),
        ("token", "hf_AbCdEfGhIjKlMnOp"),
        ("key", "0123456789abcdef" * 3),
        ("private-key", "-----BEGIN"),
    ],
)
def test_a_value_of_a_secret_key_is_a_secret(key: str, value: str) -> None:
    assert holds_secret(key, value)


def test_a_short_value_is_masked_by_its_key_only() -> None:
    cfg = OmegaConf.create({"password": "abc", "word": "abcdef"})
    redact.register_config(OmegaConf.to_container(cfg))
    assert hide_secrets("abc") == "abc"
    assert saved_config(cfg) == "password: '***'\nword: abcdef\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOME", "/home/somebody"),
        ("SLURM_JOB_ID", "12345678"),
        ("SIZE", "1000000"),
        ("DATA", "/tmp"),
        ("NAME", "short"),
        ("MODE", "training"),
        ("CACHE", "/tmp/not/yet/there"),
        ("OUT", "~/results"),
        ("OUT", "docs/of/mine"),
    ],
)
def test_a_variable_that_describes_the_process_is_shown(name: str, value: str) -> None:
    redact.register_variable(name, value)
    assert hide_secrets(value) == value


def test_a_word_of_an_ordinary_variable_stays_where_a_resume_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    redact.register_variable("DATASET", "cifar10")
    assert hide_secrets("loading cifar10") == "loading ***"
    assert mask_override("data=cifar10", certain=True) == "data=cifar10"
    assert saved_config(OmegaConf.create({"name": "cifar10"})) == "name: cifar10\n"


def test_prints_and_messages_hide_a_secret_also_through_a_stream_from_before() -> None:
    out, before = io.StringIO(), io.StringIO()
    sys.stdout = out
    handler = logging.StreamHandler(before)
    logger = logging.getLogger("test.secrets")
    logger.addHandler(handler)
    try:
        watch_secrets(read_secret)
        assert sys.stdout is out  # nothing is replaced without a secret
        register_secret("CANARY-printed")
        print("a CANARY-printed b")  # noqa: T201
        logger.error("in %s", {"x": "CANARY-printed"}, exc_info=RuntimeError("CANARY-printed"))
    finally:
        logger.removeHandler(handler)
    assert out.getvalue() == "a *** b\n"
    assert CANARY not in before.getvalue()
    assert "RuntimeError: ***" in before.getvalue()


def test_a_guarded_stream_is_a_stream() -> None:
    sys.stdout = stream = io.StringIO()
    guard_output()
    guard_output()
    register_secret("CANARY-lines")
    assert sys.stdout.write("CANARY-lines") == len("CANARY-lines")
    sys.stdout.writelines(["a", "CANARY-lines"])
    assert stream.getvalue() == "***a***"
    assert sys.stdout.isatty() is False


def test_a_spawned_worker_knows_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulgurite.shutdown.signals.known_secrets", redact.known_secrets)
    register_secret("CANARY-in-a-worker")
    pickled = pickle.dumps(IgnoreInWorker(None))
    monkeypatch.setattr(redact, "known_secrets", redact._KnownSecrets())
    assert hide_secrets("CANARY-in-a-worker") == "CANARY-in-a-worker"
    assert isinstance(pickle.loads(pickled), IgnoreInWorker)  # noqa: S301 - made above
    assert hide_secrets("CANARY-in-a-worker") == "***"


def test_a_secret_is_hidden_where_a_line_is_broken_at_its_spaces() -> None:
    register_secret("CANARY of several words")
    assert hide_secrets("see CANARY of\n   several words.") == "see ***."


def test_each_line_of_a_key_file_is_hidden() -> None:
    register_secret("-----BEGIN KEY-----\nCANARYabc\nCANARYdef\n")
    assert CANARY not in hide_secrets("  CANARYabc\n  CANARYdef")


def test_the_values_of_a_sweep_are_secrets_each() -> None:
    redact.register_override("model.api_key=CANARY-one,CANARY-two")
    params = {"model.password": "choice(CANARY-three,CANARY-four)"}  # pragma: allowlist secret
    redact.register_config({"hydra": {"sweeper": {"params": params}}})
    assert hide_secrets("CANARY-one CANARY-two CANARY-three CANARY-four choice") == "*** *** *** *** choice"


def test_what_holds_no_secret_is_returned_itself() -> None:
    register_secret("CANARY-inside")
    content = {"a": [1, ("b", {"c": None})], "d": "text"}
    assert without_secrets(content) is content
    assert without_secrets({"a": ["x", ("CANARY-inside", 1)]}) == {"a": ["x", ("***", 1)]}


def test_hydras_files_hold_interpolations_and_no_secret(tmp_path: Path) -> None:
    secrets = ["+a.api_key=CANARY-typed-4", "+a.short_password=abc", "+note=${oc.env:CANARY_TOKEN}"]
    run = run_cli("train", *secrets, "hydra.job.chdir=false", "trainer.max_epochs=0", "test=false", logs=tmp_path)
    text = "".join(path.read_text() for path in tmp_path.rglob(".hydra/*.yaml"))
    assert "CANARY-" not in text + run.stdout + run.stderr
    assert "password=***" in text
    assert not re.search(r"\babc\b", text)
    assert "note: ${oc.env:CANARY_TOKEN}" in text
    assert "- +a.api_key=***" in text


def run_of(folder: Path, overrides: list[str]) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "killed"}')
    (folder / ".hydra/overrides.yaml").write_text(saved_config(OmegaConf.create(overrides)))
    (folder / ".hydra/hydra.yaml").write_text("hydra: {overrides: {hydra: []}}")
    return folder


def test_a_resume_asks_for_a_secret_that_no_file_holds(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ["model.api_key=CANARY-typed-4", "seed=3"])
    with pytest.raises(UserError, match=r"^model.api_key=\*\*\*: .* does not hold this secret. Pass model.api_key="):
        expand_shorthands([f"resume={run}"], "train")
    expanded = expand_shorthands([f"resume={run}", "model.api_key=CANARY-again"], "train")
    assert expanded[:2] == ["seed=3", "model.api_key=CANARY-again"]


def test_a_masked_value_of_the_run_is_no_change() -> None:
    resume: dict[str, Any] = {"resume": {"reset": [], "apply": []}}
    before = {"password": "***", "url": "http://me:***@host"}
    now = {"password": "CANARY-1", "url": "http://me:CANARY-2@host"}  # pragma: allowlist secret
    saved, current = OmegaConf.create({"data": before, **resume}), OmegaConf.create({"data": now, **resume})
    assert isinstance(saved, DictConfig)
    assert isinstance(current, DictConfig)
    assert diff_configs(saved, current).rejected == []
    current.data.url = "http://me:CANARY-2@other"  # pragma: allowlist secret
    (line,) = diff_configs(saved, current).rejected
    assert line.startswith("data.url http://me:***@host -> http://me:***@other: ")


def test_hyperparameters_of_a_checkpoint_hold_no_secret() -> None:
    register_secret("CANARY-held")
    plain, _ = plain_hyperparameters({"api_key": "abc", "header": "Bearer CANARY-held", "pad_token": "<pad>"})
    assert plain == {"api_key": "***", "header": "Bearer ***", "pad_token": "<pad>"}


def test_the_reason_of_a_failed_run_holds_no_secret() -> None:
    register_secret("CANARY-reason")
    assert Outcome("failed", "RuntimeError: CANARY-reason", 1).reason == "RuntimeError: ***"


def test_the_best_config_leaves_secrets_out() -> None:
    text = experiment_text(["+a.api_key=***", "+a.url=http://me:***@host", "+a.b=1"], [])
    assert text.endswith("a:\n  b: 1\n")


def test_a_secret_is_not_searched() -> None:
    with pytest.raises(ConfigError, match=r"model\.api_key: a secret cannot be searched"):
        read_space(["model.api_key=choice(a,b)", "seed=range(1,3)"], OmegaConf.create())


def test_a_loaded_run_names_what_its_config_holds_in_place_of_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path / "run", [])
    cfg = compose(["+model.api_key=CANARY-typed-4"], output_dir=tmp_path / "run")
    (run / ".hydra/config.yaml").write_text(saved_config(cfg))
    assert load_run(run).cfg.model.api_key == "***"
    (line,) = [record.getMessage() for record in caplog.records if "***" in record.getMessage()]
    assert line.startswith("model.api_key=***: ")


# the secret of each of the nine routes, in each run of its own: the working tree, whose changes a run saves, has none
NINE = ("text", "plain", "resolver", "typed", "listed", "file", "url", "computed", "whole")
LEAKY = [
    "model._target_=tests.support.leaky.LeakyModel",
    "data._target_=tests.support.toy_task.OrdinaryData",
    "extras.allowed_targets=[tests]",
    "extras.print_config=full",
    "logger=csv",
    "monitor=val/loss",
    "monitor_mode=min",
    "~callbacks.early_stopping",
    "trainer.max_epochs=1",
    "test=false",
    "callbacks.last_checkpoint.every_n_train_steps=1",
    "experiment=secret",
    "+model.header='Bearer ${oc.env:LEAKY_TEXT_TOKEN}'",
    "+model.others=[{password:LISTED},'${secret:LEAKY_SECRET}','${oc.env:LEAKY_PLAIN}',${whole}]",
    "+whole=['http://me:URL@db','${oc.env:LEAKY_${part}}','${oc.env:LEAKY_WHOLE_KEY}']",  # pragma: allowlist secret
    "+part=COMPUTED_TOKEN",
    "+model.note=${model.api_key}",
]
SLOTS = ["-m", "hydra/launcher=local", "hydra.launcher.slots=2"]
SEARCH = [*SLOTS, "hydra/sweeper=search", "hydra.sweeper.n_trials=2", "optimized_metric=val/loss", "seed=range(1,9)"]
RUNS = {
    "plain": ["+model.api_key=TYPED"],
    "crashing": ["+model.api_key=TYPED", "+model.crash=true"],
    "swept": ["-m", "+model.api_key=TYPED,TYPED2"],
    "swept by Hydra": ["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "+model.api_key=TYPED,TYPED2"],
    "searching": [*SEARCH, "+model.api_key=TYPED"],
    "local slots": [*SLOTS, "+model.api_key=TYPED", "+model.crash=true,false"],
    "DDP": ["+model.api_key=TYPED", "trainer=ddp_sim", "trainer.devices=2"],
    "spawned ranks": ["+model.api_key=TYPED", "trainer=ddp_sim", "trainer.strategy=ddp_spawn"],
}
CLUSTERS = {
    "Slurm": (["-m", "hydra/launcher=slurm", "hydra.launcher.cluster=local", "seed=1,2"], "submitit"),
    "Ray": (["-m", "hydra/launcher=ray", "hydra.launcher.slots=2", "seed=1,2"], "ray"),
}
RUNS |= {name: ["+model.api_key=TYPED", *overrides] for name, (overrides, _) in CLUSTERS.items()}


@pytest.fixture
def leaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Return the text in each secret of a run, and the command line with a secret by each of the nine routes."""
    canary = f"C{token_hex(5)}"
    of = {route: f"{canary}-{route}-{number}" for number, route in enumerate(NINE)}
    of["resolver"] = f'{canary} "se\'cret" {canary}'
    names = {
        "TEXT_TOKEN": "text",
        "SECRET": "resolver",  # pragma: allowlist secret
        "PLAIN": "plain",
        "COMPUTED_TOKEN": "computed",
    }
    for name, route in {**names, "WHOLE_KEY": "whole"}.items():
        monkeypatch.setenv(f"LEAKY_{name}", of[route])
    text = f"# @package _global_\nmodel: {{password: {of['file']}}}\n"
    given = [each.replace("LISTED", of["listed"]).replace(":URL@", f":{of['url']}@") for each in LEAKY]
    return canary, [*with_file(tmp_path / "given", "experiment/secret.yaml", text), *given]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_secret_is_in_no_byte_that_a_run_leaves(name: str, leaking: tuple[str, list[str]], tmp_path: Path) -> None:
    if name in CLUSTERS:
        pytest.importorskip(CLUSTERS[name][1])
    (canary, overrides), logs = leaking, tmp_path / "logs"
    typed = [each.replace("TYPED", f"{canary}-typed") for each in RUNS[name]]
    done = run_cli("train", *overrides, *typed, logs=logs)
    assert done.returncode == (1 if "crash=true" in " ".join(typed) else 0), done.stderr
    files = {path: path.read_bytes() for path in logs.rglob("*") if path.is_file()}
    shown = done.stdout + done.stderr + "".join(map(str, files))
    printed = shown + "".join(files[path].decode() for path in files if path.suffix in {".log", ".out", ".err"})
    assert len(re.findall(r"logged .*\*\*\*", printed)) >= 2
    assert canary not in shown
    assert any(path.suffix == ".ckpt" for path in files) or "+model.crash=true" in typed
    is_named = any(b"of_***" in content for path, content in files.items() if path.name == "metrics.csv")
    assert is_named or "+model.crash=true" in typed
    assert [path for path, content in files.items() if canary.encode() in content] == []


def test_the_resolved_config_is_printed_without_secrets(leaking: tuple[str, list[str]], tmp_path: Path) -> None:
    canary, overrides = leaking
    done = run_cli("train", "--cfg=job", "--resolve", *overrides, f"+model.api_key={canary}", logs=tmp_path / "logs")
    assert done.returncode == 0
    assert "header: Bearer ***" in done.stdout
    assert canary not in done.stdout + done.stderr
