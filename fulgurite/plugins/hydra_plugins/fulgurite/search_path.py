"""Let any Hydra app find the library's own config groups."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

import fulgurite


class FulguriteSearchPath(SearchPathPlugin):
    """Append `fulgurite/conf` to the config search path, after the app's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder."""
        folder = Path(fulgurite.__file__).parent / "conf"
        search_path.append(provider="fulgurite", path=f"file://{folder}")
