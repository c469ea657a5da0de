"""One list of dependencies: pyproject.toml asks, requirements.txt pins that, environment.yaml points there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = (("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64"), ("win32", "Windows", "AMD64"))


def read_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


PINS = [Requirement(line.split("#", maxsplit=1)[0]) for line in read_lines("requirements.txt")]
ASKED = [Requirement(text) for text in PROJECT["dependencies"]]
PINNED_EXTRAS = [
    Requirement(text) for name in ("tensorboard", "dev") for text in PROJECT["optional-dependencies"][name]
]


def environment_of(python: str, platform: tuple[str, str, str]) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform[0],
        "platform_system": platform[1],
        "platform_machine": platform[2],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def pinned_for(name: str, environment: dict[str, str]) -> list[Requirement]:
    wanted = canonicalize_name(name)
    return [
        pin
        for pin in PINS
        if canonicalize_name(pin.name) == wanted and (pin.marker is None or pin.marker.evaluate(environment))
    ]


@pytest.mark.parametrize("platform", PLATFORMS, ids=[platform[0] for platform in PLATFORMS])
@pytest.mark.parametrize("python", PYTHONS)
def test_everything_asked_for_is_pinned_once_and_inside_its_bounds(python: str, platform: tuple[str, str, str]) -> None:
    environment = environment_of(python, platform)
    for asked in ASKED + PINNED_EXTRAS:
        if asked.marker and not asked.marker.evaluate(environment):
            continue
        pins = pinned_for(asked.name, environment)
        assert len(pins) == 1, f"{asked.name} has {len(pins)} pins on Python {python}, {platform[0]}: run make lock"
        (version,) = [specifier.version for specifier in pins[0].specifier]
        assert asked.specifier.contains(version), f"{asked.name}=={version} is outside {asked.specifier}: run make lock"


def test_every_line_of_requirements_is_an_exact_pin() -> None:
    for pin in PINS:
        assert [specifier.operator for specifier in pin.specifier] == ["=="], str(pin)
        assert pin.url is None, str(pin)


def test_requirements_name_no_index_and_no_build_of_torch() -> None:
    for line in read_lines("requirements.txt"):
        assert not line.startswith("-"), line
        assert "+" not in line.split("#", maxsplit=1)[0], line


@pytest.mark.parametrize("pattern", ["nvidia", "cuda", "triton", "torchvision"])
def test_requirements_leave_the_accelerator_to_the_wheel_of_torch(pattern: str) -> None:
    assert [pin.name for pin in PINS if pattern in pin.name.lower()] == []


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("lightning", ["2.6.1", "2.6.2", "2.6.3", "3.0.0"], "2.6.4"),
        ("torch", ["2.5.1", "2.9.1", "3.0.0"], "2.10.0"),
        ("hydra-core", ["1.3.2", "1.4.0"], "1.3.8"),
        ("sqlalchemy", ["2.0.58", "2.1.9"], "1.4.54"),
        ("alembic", ["1.17.0", "1.20.1"], "1.16.5"),
    ],
)
def test_releases_known_to_be_bad_are_outside_the_bounds(name: str, bad: list[str], good: str) -> None:
    (asked,) = [requirement for requirement in ASKED if requirement.name == name]
    assert [version for version in bad if asked.specifier.contains(version)] == []
    assert asked.specifier.contains(good)


def test_every_dependency_has_an_upper_bound() -> None:
    unbounded = [asked.name for asked in ASKED if not any(part.operator == "<" for part in asked.specifier)]
    assert unbounded == []


def test_each_logger_is_an_extra_and_none_is_a_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) >= {"tensorboard", "mlflow", "wandb", "comet", "aim", "dev"}
    loggers = {
        canonicalize_name(Requirement(text).name) for extra, texts in extras.items() if extra != "dev" for text in texts
    }
    assert loggers & {canonicalize_name(asked.name) for asked in ASKED} == set()


def test_the_conda_environment_takes_its_packages_from_requirements() -> None:
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    python, pip, from_pip = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert (pip, from_pip) == ("pip", {"pip": ["-r requirements.txt"]})


def test_the_classifiers_name_the_pythons_that_are_required() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tuple(named) == PYTHONS
    assert PROJECT["requires-python"] == ">=3.10,<3.14"


def test_the_next_line_differs_from_the_pins_it_is_installed_over() -> None:
    for line in read_lines("requirements-next.txt"):
        following = Requirement(line)
        (pin,) = pinned_for(following.name, environment_of("3.11", PLATFORMS[0]))
        (version,) = [specifier.version for specifier in pin.specifier]
        assert not following.specifier.contains(version), f"{line}: requirements.txt has it already"
