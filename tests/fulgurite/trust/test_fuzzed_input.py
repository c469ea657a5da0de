"""What a fuzzer found in the readers of files and command lines that somebody else may have written."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.config.yaml_limits import check_config_file
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.engine.outcome import Outcome, print_error
from fulgurite.reporting.sweep_summary import summarise
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.runs.sweep_ledger import ledger_state
from fulgurite.validation.overrides import parse

RUN = {"status": "done", "start": "2026-01-01T00:00:00+00:00", "end": "2026-01-01T00:00:05+00:00", "exit_code": 0}
DEEP = "[" * 100_000
# a few aliases that text would expand to gigabytes
ALIASES = "".join(
    f"- &{name} [{','.join(['x' if name == 'a' else f'*{before}'] * 9)}]\n"
    for before, name in zip(" abcdefghi", "abcdefghij", strict=True)
)


def run_with(folder: Path, **files: str | bytes) -> Path:
    run = folder / "0"
    (run / ".hydra").mkdir(parents=True)
    names = {
        "record": "run.json",
        "results": "results.json",
        "metrics": "metrics.csv",
        "overrides": ".hydra/overrides.yaml",
    }
    for name, content in {"record": json.dumps(RUN), **files}.items():
        (run / names[name]).write_bytes(content.encode() if isinstance(content, str) else content)
    return run


def read_all(folder: Path) -> RunDirectory | None:
    """Read everything that a table or a report reads of a run."""
    run = RunDirectory.of(folder)
    if run is not None:
        _ = run.status, run.reason, run.seconds, run.is_resumable(), run.shown_overrides, run.values, run.metrics
        run.curves(["loss", "step"])
    summarise(folder.parent)
    return run


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (DEEP, "is nested too deeply"),
        ("[]", "not a JSON object"),
        (json.dumps({**RUN, "tags": {"a": 1}}), "tags is not a list"),
        (json.dumps({**RUN, "tags": [["a"]]}), "tags holds something else than text"),
        (json.dumps({**RUN, "loggers": {"csv": {}}}), "loggers holds something else than text"),
        (json.dumps({**RUN, "loggers": ["csv"]}), "loggers is not a dict"),
        (json.dumps({**RUN, "exit_code": "0"}), "exit_code is not an int"),
        (json.dumps({**RUN, "start": 5}), "start is not a str"),
        (json.dumps({**RUN, "sweep": "x"}), "sweep is not a dict"),
        (b"\xff\xfe{}", "is not readable"),
    ],
)
def test_a_record_of_another_shape_is_named_and_skipped(
    record: str | bytes, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_all(run_with(tmp_path, record=record)) is None
    shown = capsys.readouterr().err
    assert fault in shown
    assert "run.json is not readable" in shown


@pytest.mark.parametrize("time", ["20<0-01-01T00:00:00+00:00", "2026-01-01T00:00:00", "x", "9" * 5000])
def test_an_odd_time_is_no_duration(time: str, tmp_path: Path) -> None:
    run = read_all(run_with(tmp_path, record=json.dumps({**RUN, "end": time})))
    assert run is not None
    assert run.seconds is None


@pytest.mark.parametrize(
    "content",
    [b"\x9b\xff", b"step,loss\n1,2\n\xb1,3\n", b"step,loss\n1,2,3,4\n", b"step,loss\nx,y\n", b"step\0,loss\n1,\0\n"],
)
def test_odd_metrics_are_left_out(content: bytes, tmp_path: Path) -> None:
    run = read_all(run_with(tmp_path, metrics=content))
    assert run is not None
    assert all(isinstance(value, float) for row in run.metric_rows() for value in row.values())


def test_a_field_without_end_stops_the_reading(tmp_path: Path) -> None:
    run = read_all(run_with(tmp_path, metrics=b'step,loss\n1,2\n"' + b"9" * 200_000))
    assert run is not None
    assert run.curves(["loss"]) == {"loss": [(1.0, 2.0)]}


@pytest.mark.parametrize("results", ['{"metrics": [1]}', '{"metrics": {"a": "b", "c": [1]}}', DEEP, "null"])
def test_odd_results_hold_no_metrics(results: str, tmp_path: Path) -> None:
    run = read_all(run_with(tmp_path, results=results))
    assert run is not None
    assert run.metrics == {}


@pytest.mark.parametrize(
    "overrides",
    [
        b"- a=\x9b\n",
        "&a [*a]",
        DEEP.encode(),
        "- !!python/object:os.system x",
        ALIASES,
    ],
)
def test_odd_overrides_are_none(overrides: str | bytes, tmp_path: Path) -> None:
    run = read_all(run_with(tmp_path, overrides=overrides))
    assert run is not None
    assert run.overrides == ()


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "plan"}',
        '{"event": "plan", "jobs": 5}',
        '{"event": "plan", "jobs": [1]}',
        '{"event": "plan", "jobs": [{"job": [], "key": "a"}]}',
        '{"event": "started", "job": {}}',
        '{"event": "started", "job": 1}',
        '{"job": 1, "key": "a"}',
        "[]",
        DEEP,
    ],
)
def test_an_odd_line_of_a_ledger_is_skipped(line: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.jsonl").write_text(f'{line}\n{{"event": "started", "job": 0, "key": "k"}}\n')
    state = ledger_state(tmp_path)
    assert [event["event"] for event in state.events if "job" in event] == ["started"]


@pytest.mark.parametrize("content", ["&a [*a]", "a: " + "[" * 5000, "a: \x00", "? " * 3000, "- " * 5000])
def test_an_odd_config_file_is_refused_or_left_to_the_parser(content: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with suppress(
        UserError, yaml.YAMLError, OmegaConfBaseException, RecursionError
    ):  # the last one has a line of its own
        check_config_file(file)
        OmegaConf.load(file)


@pytest.mark.parametrize(
    "override",
    [
        "\ry=x",
        "a=\r",
        "a=\xb3\x1b~+uv)",
        "a\x85b=1",
        "a=\u2028[",
        "a=\x1b]0;title\x07[",
        "\u202ea=1",
        "a=\ud800\x0c(",
        "a=b\nc d\x0b",
        "=\x1b",
        "~\x1b",
        "\x1b = x",
    ],
)
def test_a_refused_override_is_one_line_that_steers_no_terminal(
    override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bad = parse(override.split(" "))
    assert bad
    for error in (
        ConfigError(bad),
        UserError("\n".join(ConfigError(bad).findings)),
        UserError(f"{override}: is wrong."),
    ):
        print_error(error)
        lines = capsys.readouterr().err.split("\n")
        assert all(line.isprintable() for line in lines)
        assert all(line.startswith("error: ") for line in lines[:-1])
    assert all(line.isprintable() for line in Outcome("failed", override, 2).reason.split("\n"))
