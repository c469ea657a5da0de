"""Each format gives the same values, and what cannot be a config is one line."""

from __future__ import annotations

import pytest

from fulgurite.sources.formats import parse
from fulgurite.sources.reader import SourceError

WANTED = {"lr": 0.001, "net": {"sizes": [1, 2]}, "name": "a"}


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "lr: 1e-3\nnet:\n  sizes: [1, 2]\nname: a\n"),
        ("conf/live.yml", "{lr: 0.001, net: {sizes: [1, 2]}, name: a}"),
        ("json", '{"lr": 0.001, "net": {"sizes": [1, 2]}, "name": "a"}'),
        (".TOML", 'lr = 1e-3\nname = "a"\n[net]\nsizes = [1, 2]\n'),
    ],
)
def test_a_suffix_names_the_format(suffix: str, text: str) -> None:
    assert parse(text.encode(), suffix) == WANTED


def test_dotenv_gives_texts_and_skips_blank_lines_and_comments() -> None:
    assert parse(b"\n# comment\nA=1\nexport B='x y'\n", ".env") == {"A": "1", "B": "x y"}


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml", ".env"])
def test_nothing_is_an_empty_dictionary(suffix: str) -> None:
    assert parse(b"", suffix) == {}
    assert parse(b"\n", suffix) == {}


@pytest.mark.parametrize(
    ("data", "suffix", "problem"),
    [
        (b"a: \xff\xfe", ".yaml", r"etcd://h/k:1: byte 3 \(0xff\) is not UTF-8"),
        (b"- a\n", ".yaml", "is a list, not keys"),
        (b"lr\n", ".yaml", "is a str, not keys"),
        (b"a: [1\n", ".yaml", "etcd://h/k:2: is not valid YAML"),
        (b"a: 1\na: 2\n", ".yaml", "the key a stands twice"),
        (b"a: !!python/object/apply:os.system [id]\n", ".yaml", "is not valid YAML"),
        (b"a: &a [*a]\n", ".yaml", "inside its own anchor"),
        (b"a: &a [1,1,1,1,1,1,1,1,1,1]\n" + b"".join(
            b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (98 + i, 98 + i, *[97 + i] * 8) for i in range(8)
        ), ".yaml", "its aliases expand"),
        (b"[" * 5000, ".yaml", "is nested too deeply"),
        (b"? [a, b]\n: 1\n", ".yaml", "is not a name|not valid YAML"),
        (b'{"a": 1', ".json", "etcd://h/k:1: is not valid JSON"),
        (b"[" * 100_000, ".json", "is nested too deeply"),
        (b"a = \n", ".toml", "is not valid TOML"),
        (b"A\n", ".env", "etcd://h/k:1: is not valid key=value"),
        (b"a: 1", ".ini", "the format '.ini' is not known"),
    ],
)  # fmt: skip
def test_what_is_no_config_is_one_line_with_the_source(data: bytes, suffix: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        parse(data, suffix, "etcd://h/k")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("etcd://h/k")


def test_a_date_is_text() -> None:
    assert parse(b"day: 2026-01-02\n", ".yaml") == {"day": "2026-01-02"}
