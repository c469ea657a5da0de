"""`hydra.searchpath` with remote sources: what composes, how often they are asked, and what happens when they fail."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

import fulgurite
from fulgurite.config.target_policy import check_targets
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.sources.answers import forget_answers, save_snapshot, snapshot_of, used_sources
from fulgurite.sources.config_source import source_class
from fulgurite.sources.reader import SourceError
from tests.support.compose import compose_raw, findings
from tests.support.project import CONFIGS, ROOT
from tests.support.servers.doubles import WebDouble, double

EXPERIMENT = b"""# @package _global_
defaults:
  - override /model: big
  - override /trainer: long
trainer:
  gradient_clip_val: 0.25
"""
BIG = (CONFIGS / "model/mnist.yaml").read_bytes()
LONG = b'max_epochs = 7\n_target_ = "lightning.pytorch.Trainer"\n'
FILES = {"experiment/exp1.yaml": EXPERIMENT, "model/big.yaml": BIG, "trainer/long.toml": LONG}
QUICK = "#timeout=1&max_retry=0"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget_answers()


def composed(address: str, *overrides: str, options: str = QUICK, **more: Any) -> DictConfig:
    return fulgurite.compose([f"hydra.searchpath=['{address}/conf{options}']", *overrides], **more)


@pytest.mark.parametrize("kind", ["http", "consul", "etcd"])
def test_an_experiment_that_exists_only_there_overrides_groups(kind: str) -> None:
    with double(kind, FILES) as server:
        cfg = composed(server.url, "experiment=exp1", "trainer.gradient_clip_val=0.5")
    assert (cfg.trainer.max_epochs, cfg.trainer.gradient_clip_val) == (7, 0.5)
    assert cfg.model._target_ == "src.models.classifier.Classifier"
    assert used_sources() == [f"{server.url}/conf"]


def test_a_fsspec_address_composes() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe({f"/m/conf/{path}": data for path, data in FILES.items()})
    assert composed("memory://m", "experiment=exp1").trainer.max_epochs == 7
    fsspec.filesystem("memory").rm("/m", recursive=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.yaml", "vars: {lr: 1e-3}\n"),
        ("x.json", '{"vars": {"lr": 0.001}}'),
        ("x.toml", "[vars]\nlr = 1e-3\n"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "consul", "etcd"])
def test_each_format_is_parsed_from_each_source(kind: str, name: str, text: str) -> None:
    files = {f"experiment/{name}": text.encode(), "experiment/keys.env": b"A=1\n"}
    with double(kind, files) as server:
        source = source_class(kind)("hydra.searchpath", f"{server.url}/conf{QUICK}")
        assert source.load_config("experiment/x").config == {"vars": {"lr": 0.001}}
        assert source.load_config("experiment/keys").config == {"A": "1"}


def test_four_jobs_of_a_sweep_ask_for_each_file_once() -> None:
    with double("http", FILES) as server:
        for seed in range(4):
            compose_raw(f"hydra.searchpath=['{server.url}/conf']", "experiment=exp1", f"seed={seed}", "callbacks=none")
    assert len(server.requests) <= 10, server.requests
    assert len(set(server.requests)) == len(server.requests)


@pytest.mark.slow
def test_a_server_without_lists_is_asked_for_each_file_once_the_absent_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(WebDouble, "index", False)
    files = {**FILES, "trainer/long.yaml": b"max_epochs: 7\n_target_: lightning.pytorch.Trainer\n"}
    with double("http", files) as server:
        for seed in range(4):
            cfg = compose_raw(f"hydra.searchpath=['{server.url}/conf']", "experiment=exp1", f"seed={seed}")
            assert cfg.trainer.max_epochs == 7
    assert len(server.requests) <= 10, server.requests
    assert "lists no files" in capsys.readouterr().err


def test_a_config_of_a_server_without_lists_exists_beside_another_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WebDouble, "index", False)
    with double("http", {"experiment/far.yaml": b"# @package _global_\nseed: 7\n"}) as server:
        (line,) = findings(f"hydra.searchpath=['{server.url}/conf']", "experiment=far", "trainer.max_epoch=3")
        assert line.startswith("command line: trainer.max_epoch=3: there is no such key")
        (line, _) = findings(f"hydra.searchpath=['{server.url}/conf']", "experiment=fr", "trainer.max_epoch=3")
        assert line.startswith("command line: experiment=fr: there is no experiment 'fr'")


def test_a_run_that_needs_nothing_remote_composes_without_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with double("http", FILES) as server:
        pass
    assert composed(server.url, "model=mnist").model._target_ == "src.models.classifier.Classifier"
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"warning: {server.url}/conf: failed (")
    assert line.endswith("Composing without it.")


def test_what_is_needed_and_missing_is_an_error_beside_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with double("http", FILES) as server:
        pass
    with pytest.raises(Exception, match="exp1"):
        composed(server.url, "experiment=exp1")
    assert f"warning: {server.url}/conf: failed (" in capsys.readouterr().err


def test_a_file_that_fails_after_its_list_stops_with_source_and_key() -> None:
    class Flapping(WebDouble):
        def answer(self, handler: Any, body: bytes) -> None:
            if handler.path.endswith("big.yaml"):
                handler.send_error(500)
            else:
                super().answer(handler, body)

    files = {f"conf/{path}": data for path, data in FILES.items()}
    with Flapping(files) as server, pytest.raises(SourceError, match=r"/conf/model/big\.yaml: answered 500\."):
        composed(server.url, "experiment=exp1")


def test_the_copy_of_the_last_good_fetch_is_used_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    keep = f"{QUICK}&stop_on_failure=false"
    with double("etcd", FILES) as server:
        first = composed(server.url, "experiment=exp1", options=keep)
    again = composed(server.url, "experiment=exp1", options=keep)
    assert again == first
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "This uses the copy of the last good fetch, 20" in line
    assert "(copy of 20" in used_sources()[0]
    with pytest.raises(Exception, match="exp1"):
        composed(server.url, "experiment=exp1")  # stop_on_failure is the default


def test_a_run_composes_again_from_its_copies_without_the_server(tmp_path: Path) -> None:
    folder = tmp_path / ".hydra" / "sources"
    with double("consul", FILES) as server:
        first = composed(server.url, "experiment=exp1", output_dir=tmp_path)
        save_snapshot(folder)
        num_requests = len(server.requests)
        assert composed(server.url, "experiment=exp1", output_dir=tmp_path, sources_of=tmp_path) == first
        assert len(server.requests) == num_requests
    assert composed(server.url, "experiment=exp1", output_dir=tmp_path, sources_of=tmp_path) == first
    index = json.loads((folder / "index.json").read_text())
    entry = index[f"{server.url}/conf"]
    assert entry["files"].keys() == FILES.keys()
    assert {len(each["sha256"]) for each in entry["files"].values()} == {64}
    (folder / entry["folder"] / "model" / "big.yaml").write_text("_target_: os.system\n")
    with pytest.raises(SourceError, match=r"big\.yaml: is not the file that was fetched from consul://"):
        composed(server.url, "experiment=exp1", sources_of=tmp_path)


def test_copies_in_a_run_directory_of_another_user_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".hydra" / "sources"
    with double("http", FILES) as server:
        composed(server.url, "experiment=exp1")
        save_snapshot(folder)
        assert snapshot_of(tmp_path) == folder
        monkeypatch.setattr("os.getuid", lambda: 12345)
        assert snapshot_of(tmp_path) is None
        assert snapshot_of(tmp_path, [f"trust=[{tmp_path}]"]) == folder
    assert f"{folder}: is of another user." in capsys.readouterr().err


def test_no_copy_of_a_file_with_a_secret_is_kept(tmp_path: Path) -> None:
    files = {**FILES, "experiment/exp1.yaml": EXPERIMENT + b"vars: {api_key: canary-4711-remote}\n"}
    with double("http", files) as server:
        composed(server.url.replace("//", "//me:canary-password@"), "experiment=exp1")
        compose_raw(f"hydra.searchpath=['{server.url}/conf']", "experiment=exp1")
        save_snapshot(tmp_path)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"canary" not in kept
    assert b"model/big.yaml" in kept


def test_a_wrong_key_has_the_address_and_the_line_that_set_it() -> None:
    text = b"# @package _global_\ntrainer:\n  max_epoch: 3\n"
    with double("http", {"experiment/typo.yaml": text}) as server:
        (line,) = findings(f"hydra.searchpath=['{server.url}/conf']", "experiment=typo")
        assert line.startswith(f"{server.url}/conf/experiment/typo.yaml:3: ")
        assert "Did you mean 'max_epochs'" in line


def hostile() -> tuple[list[str], dict[str, str]]:
    """Return the targets and their forms of the tests of foreign configs."""
    path = ROOT / "tests/fulgurite/trust/test_hostile_configs.py"
    spec = importlib.util.spec_from_file_location("hostile_configs_of_trust", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TARGETS, module.FORMS


@pytest.mark.slow
def test_forty_hostile_targets_served_over_http_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, forms = hostile()
    cases = [forms["plain"].format(target) for target in targets]
    cases += [form.format("os.system") for form in forms.values()]
    assert len(cases) >= 40
    monkeypatch.chdir(tmp_path)
    with double("http", {}) as server:
        for number, text in enumerate(cases):
            server.put(f"conf/experiment/h{number}.yaml", f"# @package _global_\n{text}\n".encode())
        for number, text in enumerate(cases):
            with pytest.raises(ConfigError) as caught:
                check_targets(composed(server.url, f"experiment=h{number}"))
            assert "_target_" in str(caught.value) or ".path=" in str(caught.value), text
    assert not [*tmp_path.glob("CANARY*")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: \xff", r"exp1\.yaml:1: byte 3 \(0xff\) is not UTF-8"),
        (b"trainer: [1\n", r"exp1\.yaml:2: is not valid YAML"),
        (b"x: " + b"y" * 300_000, r"exp1\.yaml: has 300,003 bytes"),
        (b"a: &a [*a]\n", "inside its own anchor"),
        (b"a: {" * 200, "nested too deeply"),
    ],
)
def test_a_value_that_is_no_config_is_one_line(data: bytes, problem: str) -> None:
    with double("etcd", {"experiment/exp1.yaml": data}) as server, pytest.raises(UserError, match=problem) as caught:
        source_class("etcd")("hydra.searchpath", f"{server.url}/conf").load_config("experiment/exp1")
    assert str(caught.value).startswith(f"{server.url}/conf/experiment/exp1.yaml")
    assert "\n" not in str(caught.value)


def test_wrong_options_of_an_address_are_one_line() -> None:
    with pytest.raises(SourceError, match="http://h/conf#tmeout=1: is not an option of a source"):
        composed("http://h", "model=mnist", options="#tmeout=1")
