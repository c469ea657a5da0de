"""Configs of remote sources in Hydra's search path: `hydra.searchpath=[https://host/configs, etcd://host/prefix]`."""

from __future__ import annotations

import io
import re
import warnings
from functools import cached_property
from typing import Any

import yaml
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from fulgurite.compat.interpolations import YAML_LOADER
from fulgurite.sources.answers import Answers, answers_of
from fulgurite.sources.formats import SUFFIXES, parse
from fulgurite.sources.reader import Names, SourceError, split_options, without_credentials
from fulgurite.sources.reader import ReadOptions as _ReadOptions
from fulgurite.sources.yaml_bounds import check_header, check_size, check_yaml, text_of
from fulgurite.trust.sources import current_sources

# Those of fsspec for files on other machines; fsspec itself is imported when one is used. `file` is Hydra's own.
SCHEMES = (
    "http", "https", "etcd", "consul",
    "abfs", "abfss", "adl", "az", "dropbox", "dvc", "ftp", "gcs", "gdrive", "git", "github", "gitlab", "gs", "hdfs",
    "hf", "jlab", "jupyter", "lakefs", "memory", "oci", "oss", "s3", "s3a", "sftp", "smb", "ssh", "tos", "webhdfs",
)  # fmt: skip


class RemoteSource(ConfigSource):
    """Configs of a remote source. What is fetched is foreign: `fulgurite.trust` judges it before it is merged."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._address = path
        plain = without_credentials(split_options(path, _ReadOptions())[0])
        self.path = plain.partition("://")[2]  # Hydra saves it

    @cached_property
    def _answers(self) -> Answers:
        return answers_of(self._address)

    def load_config(self, config_path: str) -> ConfigResult:
        """Fetch and parse a config; what is wrong with it is one line with the source and the key."""
        path = self._answers.find(config_path)
        found = None if path is None else self._answers.read(path)
        if path is None or found is None:
            raise ConfigLoadError(f"Config not found : {self.full_path()}/{config_path}")
        place = self._answers.place(path)
        check_size(len(found.data), place)
        text = text_of(found.data, place)
        check_header(text, place)
        config: Any = _of_yaml(text, place) if path.endswith((".yaml", ".yml")) else parse(found.data, path, place)
        header: Any = self._get_header_dict(text[:512])
        result = ConfigResult(
            config=config if OmegaConf.is_config(config) else OmegaConf.create(config),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )
        current_sources().check_loaded(result, config_path)
        return result

    def available(self) -> bool:
        """Return whether the source lists anything; what it does not is reported in one line already."""
        message = re.escape(f"provider={self.provider}, path={self.path} is not available.")
        warnings.filterwarnings("ignore", message=message)
        return self._answers.has_folder("")

    def is_group(self, config_path: str) -> bool:
        """Return whether the source lists a folder."""
        return self._answers.has_folder(config_path)

    def is_config(self, config_path: str) -> bool:
        """Return whether the source has a config."""
        return self._answers.find(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> Names:
        """Return the names of groups and configs in a folder."""
        names = self._answers.names(config_path.strip("/")) if self.is_group(config_path) else []
        groups = {name.rstrip("/") for name in names if name.endswith("/")}
        configs = {name.rpartition(".")[0] for name in names if name.endswith(SUFFIXES)}
        if results_filter == ObjectType.GROUP:
            return sorted(groups)
        return sorted(configs if results_filter == ObjectType.CONFIG else groups | configs)

    def source_text(self, config_path: str) -> tuple[str, str] | None:
        """Return the address and the text of a config in YAML, for messages about its lines; None if there is none."""
        path = self._answers.find(config_path)
        if path is None or not path.endswith((".yaml", ".yml")):
            return None
        found = self._answers.read(path)
        return None if found is None else (self._answers.place(path), found.data.decode())


def source_class(scheme: str) -> type[RemoteSource]:
    """Return the class of a scheme, which Hydra finds by its static method."""
    return type(f"{scheme.capitalize()}ConfigSource", (RemoteSource,), {"scheme": staticmethod(lambda: scheme)})


def _of_yaml(text: str, place: str) -> Any:
    """Return what OmegaConf reads, as of a local file."""
    check_yaml(text, place)
    try:
        config = OmegaConf.load(io.StringIO(text))
        nodes = (event for event in yaml.parse(text, Loader=YAML_LOADER) if isinstance(event, yaml.NodeEvent))
        # OmegaConf makes a key of a text
        if not isinstance(root := next(nodes, None), yaml.MappingStartEvent) and config:
            kind = "text" if isinstance(root, yaml.ScalarEvent) else "a list"
            raise SourceError(place, f"is {kind}, not keys with values", "Write `key: value`")
    except (yaml.YAMLError, OSError, ValueError) as error:  # OSError: neither a dictionary nor a list
        mark = getattr(error, "problem_mark", None)
        where = place if mark is None else f"{place}:{mark.line + 1}"
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SourceError(where, f"is not valid YAML ({problem})", "Correct it") from error
    return config
