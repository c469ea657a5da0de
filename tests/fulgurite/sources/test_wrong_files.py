"""What a source serves in place of a config: one line with the source and the key, for `explain` as for a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.explain.explain_cli import main
from fulgurite.sources.answers import forget_answers
from fulgurite.sources.formats import parse
from fulgurite.sources.reader import SourceError
from tests.support.compose import with_file
from tests.support.servers.doubles import double

HEADER = b"# @package _global_\n"
DIGITS = b"9" * 100_000
LONG = "a number has more than 4,300 digits. Write it as text, in quotes."
PAGE = b"<!DOCTYPE html>\n<html><body><p>Log in: <a href='/login'>here</a></p></body></html>\n"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    forget_answers()


def said(files: dict[str, bytes], capsys: pytest.CaptureFixture[str], name: str = "wrong") -> tuple[str, list[str]]:
    """Return the address of a web server and what explaining an experiment of it writes as errors."""
    with double("http", files) as server:
        address = f"{server.url}/conf"
        code = main(["seed", f"hydra.searchpath=[{address}]", f"experiment={name}"])
    lines = capsys.readouterr().err.splitlines()
    assert (code == 2) == bool(lines)
    return address, lines


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("wrong.yaml", PAGE, ": is a web page, not YAML. Correct the address, or the login."),
        ("wrong.yaml", b"\n<html>: x\n", ": is a web page, not YAML. Correct the address, or the login."),
        ("wrong.yaml", b"- a\n- b\n", ": is a list, not keys with values. Write `key: value`."),
        ("wrong.yaml", b"Not found\n", ": is text, not keys with values. Write `key: value`."),
        ("wrong.yaml", b"# @package", ":1: the header '# @package' is not a name and a value. Write e.g. '# @package "),
        ("wrong.yaml", b"\n# @package\nseed: 3\n", ":2: the header '# @package' is not a name and a value. Write e.g."),
        ("wrong.yaml", b"\xef\xbb\xbf" + HEADER, ":1: the header stands behind a byte order mark, and so is not read."),
        ("wrong.yaml", HEADER + b"seed: " + DIGITS, f":2: {LONG}"),
        ("wrong.yaml", HEADER + b"seed: 0x" + DIGITS, f":2: {LONG}"),
        ("wrong.yaml", HEADER + b"seed: 1" + b":59" * 50_000, f":2: {LONG}"),
        ("wrong.json", b'{"seed": ' + DIGITS + b"}", f": {LONG}"),
        ("wrong.toml", b"seed = " + DIGITS, f": {LONG}"),
        ("wrong.toml", b"seed = 0x" + DIGITS, f": {LONG}"),
        ("wrong.json", PAGE, ":1: is not valid JSON"),
    ],
)
def test_what_is_no_config_is_one_line(
    name: str, data: bytes, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address, lines = said({f"experiment/{name}": data}, capsys)
    [line] = lines
    assert line.startswith(f"error: {address}/experiment/{name}{problem}")


@pytest.mark.parametrize(
    "data", [b"", b"# a comment\n", b"---\n", b"null\n", b"#\n# @package _global_\n\nseed: '" + DIGITS + b"'\n"]
)
def test_what_is_one_is_no_error(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert said({"experiment/wrong.yaml": data}, capsys)[1] == []


@pytest.mark.parametrize("data", [b"x: " + b"9" * (1 << 20), b"x: 1" + b":59" * (1 << 18)])
def test_a_store_refuses_a_number_without_end_at_once(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"etcd://h/k:1: a number has more than 4,300 digits\."):
        parse(data, ".yaml", "etcd://h/k")


@pytest.mark.parametrize(
    ("files", "trail"),
    [
        ({"wrong": b"defaults: [wrong]\n"}, "wrong.yaml:1: a config cannot include itself: wrong -> wrong."),
        (
            {"wrong": b"defaults: [next, wrong]\n", "next": b"a: 1\ndefaults:\n  - wrong\n"},
            "next.yaml:3: a config cannot include itself: wrong -> next -> wrong.",
        ),
    ],
)
def test_a_config_that_includes_itself_is_named_with_the_way(
    files: dict[str, bytes], trail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address, [line] = said({f"experiment/{name}.yaml": data for name, data in files.items()}, capsys)
    assert line.replace(" experiment/", " ").startswith(f"error: {address}/experiment/{trail}")
    assert line.endswith("Remove the entry")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("[htp://host/conf]", "no kind of source is named 'htp'. Did you mean 'http'"),
        ("[qqqqqq://host/conf]", "no kind of source is named 'qqqqqq'. There is "),
        ("https://host/conf", "is not a list of addresses. Write e.g. [https://<host>/configs]"),
    ],
)
def test_a_search_path_that_names_no_sources_is_one_line(
    path: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["seed", f"hydra.searchpath={path}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: command line: hydra.searchpath={path}: {problem}")


def test_in_another_format_too(capsys: pytest.CaptureFixture[str]) -> None:
    _, [line] = said({"experiment/wrong.json": b'{"defaults": ["wrong"]}'}, capsys)
    assert "experiment=wrong: a defaults list includes its own config" in line


def multiplying(depth: int) -> dict[str, bytes]:
    """Return files, each of which lists the next one twice: the last is named 2 ** depth times."""
    files = {f"grow/b{n}.yaml": f"defaults: [b{n + 1}@x{n}, b{n + 1}@y{n}]\n".encode() for n in range(depth)}
    return {**files, f"grow/b{depth}.yaml": b"a: 1\n", "experiment/wrong.yaml": HEADER + b"defaults: [/grow/b0@vars.x]"}


def test_defaults_lists_that_multiply_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    address, [line] = said(multiplying(40), capsys)
    assert line.startswith(f"error: {address}/grow/b")
    assert "it and other defaults lists name more than 2,000 configs. Name each of them once." in line
    assert said(multiplying(4), capsys)[1] == []


def test_also_where_they_end_in_a_circle(capsys: pytest.CaptureFixture[str]) -> None:
    files = {**multiplying(40), "experiment/wrong.yaml": HEADER + b"defaults: [/grow/b0@vars.x, wrong]\n"}
    address, [line] = said(files, capsys)
    assert line.startswith(f"error: {address}/experiment/wrong.yaml:2: a config cannot include itself")


def test_a_local_file_has_the_same_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, problem in (("# @package\n", ":1: the header"), (f"seed: {DIGITS.decode()}\n", f":1: {LONG}")):
        options = with_file(tmp_path, "experiment/wrong.yaml", text)
        assert main(["seed", *options, "experiment=wrong"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}/experiment/wrong.yaml{problem}")


@pytest.mark.parametrize(
    ("folder", "remedy"),
    [
        (
            "configs.example.org:8080/team",
            "Write https://configs.example.org:8080/team for a web server, or correct it.",
        ),
        ("/no/such/folder", "Correct it."),
    ],
)
def test_a_folder_that_is_not_there_is_one_warning(
    folder: str, remedy: str, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert main(["seed", f"hydra.searchpath=[{folder}]"]) == 0
    line = f"warning: hydra.searchpath: {folder}: there is no such folder. {remedy}\n"
    assert capsys.readouterr().err == line
    assert [str(each.message) for each in recwarn if "not available" in str(each.message)] == []
