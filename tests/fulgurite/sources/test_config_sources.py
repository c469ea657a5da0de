"""Hydra's own test suite for config sources, for each source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import pytest
from hydra.plugins.config_source import ConfigSource
from hydra.test_utils.config_source_common_tests import ConfigSourceTestSuite

from fulgurite.sources.answers import forget_answers
from fulgurite.sources.config_source import source_class
from fulgurite.sources.reader import ReadOptions
from tests.support.servers import real
from tests.support.servers.doubles import double

DEFAULTS = "defaults:\n  - dataset: imagenet\nkey: value\n"
FOO = "defaults:\n  - foo: bar\nx: 10\n"
FILES = {  # what the suite expects
    "config_without_group.yaml": "group: false\n",
    "config_with_unicode.yaml": "group: 数据库\n",
    "config_with_defaults_list.yaml": DEFAULTS,
    "primary_config.yaml": "primary: true\n",
    "primary_config_with_non_global_package.yaml": "# @package foo\nprimary: true\n",
    "dataset.yaml": "dataset: true\n",
    "dataset/imagenet.yaml": "name: imagenet\npath: /datasets/imagenet\n",
    "dataset/cifar10.yaml": "name: cifar10\npath: /datasets/cifar10\n",
    "optimizer/adam.yaml": "type: adam\n",
    "optimizer/nesterov.yaml": "type: nesterov\n",
    "level1/level2/nested1.yaml": "l1_l2_n1: true\n",
    "level1/level2/nested2.yaml": "l1_l2_n2: true\n",
    "configs_with_defaults_list/global_package.yaml": f"# @package _global_\n{FOO}",
    "configs_with_defaults_list/group_package.yaml": f"# @package _group_\n{FOO}",
    "package_test/none.yaml": "foo: bar\n",
    "package_test/explicit.yaml": "# @package a.b\nfoo: bar\n",
    "package_test/global.yaml": "# @package _global_\nfoo: bar\n",
    "package_test/group.yaml": "# @package _group_\nfoo: bar\n",
    "package_test/group_name.yaml": "# @package foo._group_._name_\nfoo: bar\n",
    "package_test/name.yaml": "# @package _name_\nfoo: bar\n",
}
BYTES = {path: text.encode() for path, text in FILES.items()}
QUICK = "#timeout=2&max_retry=0"


@contextmanager
def served(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the files, and yield the address."""
    if kind in {"http", "consul", "etcd"}:
        with double(kind, BYTES) as server:
            yield f"{server.url}/conf"
    elif kind == "memory":
        import fsspec

        fsspec.filesystem("memory").pipe({f"/conf/{path}": data for path, data in BYTES.items()})
        yield "memory://conf"
        fsspec.filesystem("memory").rm("/conf", recursive=True)
    elif kind == "real-etcd":
        with real.etcd(folder) as port:
            import etcd3gw

            client = etcd3gw.Etcd3Client("127.0.0.1", port, api_path="/v3/")
            for path, data in BYTES.items():
                client.put(f"conf/{path}", data)
            yield f"etcd://127.0.0.1:{port}/conf"
    else:
        with real.s3(folder) as url:
            import fsspec

            keys = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
            for name, value in {**keys, "AWS_DEFAULT_REGION": "us-east-1"}.items():
                monkeypatch.setenv(name, value)
            system = fsspec.filesystem("s3", skip_instance_cache=True)
            system.mkdir("bucket")
            for path, data in BYTES.items():
                system.pipe(f"bucket/conf/{path}", data)
            yield "s3://bucket/conf"


@pytest.fixture(scope="class")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch, served(request.cls.kind, folder, patch) as found:
        patch.setattr(ReadOptions.__init__, "__defaults__", astuple(ReadOptions(max_retry=0)))
        yield found
    forget_answers()


class _Suite(ConfigSourceTestSuite):
    """The suite of Hydra for one source."""

    kind = ""

    @pytest.fixture
    def path(self, address: str) -> str:
        return f"{address}{QUICK}"

    @pytest.fixture
    def type_(self, address: str) -> type[ConfigSource]:
        return source_class(address.partition("://")[0])


class TestWeb(_Suite):
    kind = "http"


class TestConsul(_Suite):
    kind = "consul"


class TestEtcdDouble(_Suite):
    kind = "etcd"


class TestMemory(_Suite):
    kind = "memory"


@pytest.mark.slow
class TestEtcd(_Suite):
    kind = "real-etcd"


@pytest.mark.slow
class TestObjectStore(_Suite):
    kind = "s3"
