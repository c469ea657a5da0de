"""Run PyTorch Lightning trainings that are validated, resumable and recorded.

Importing this package imports neither torch nor Lightning; each public name is imported at its first use.

Example of an entry point:
    >>> import fulgurite
    >>> @fulgurite.main(config_name="train")
    ... def train(cfg):
    ...     with fulgurite.session(cfg) as session:
    ...         fulgurite.validate(cfg)
    ...         run = fulgurite.build(cfg)
    ...         run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.restore())
    ...         session.log_results(run.trainer.callback_metrics)
    ...         return session.finish(cfg.optimized_metric)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite import callbacks, checkpoints, data, exact_resume, loggers, store
    from fulgurite.config.compose import compose
    from fulgurite.core import errors
    from fulgurite.core.errors import ConfigError, UserError
    from fulgurite.core.project import project_root
    from fulgurite.engine.app import main
    from fulgurite.engine.build import Run, build
    from fulgurite.engine.instrument import harden
    from fulgurite.engine.record import RunRecord
    from fulgurite.engine.saved_run import SavedRun, load_run
    from fulgurite.engine.session import session
    from fulgurite.store.config_store import Store
    from fulgurite.validation.validate import validate

__version__ = "0.2.0"

_EXPORTS = {
    "main": "fulgurite.engine.app",
    "session": "fulgurite.engine.session",
    "RunRecord": "fulgurite.engine.record",
    "validate": "fulgurite.validation.validate",
    "build": "fulgurite.engine.build",
    "Run": "fulgurite.engine.build",
    "compose": "fulgurite.config.compose",
    "load_run": "fulgurite.engine.saved_run",
    "SavedRun": "fulgurite.engine.saved_run",
    "harden": "fulgurite.engine.instrument",
    "Store": "fulgurite.store.config_store",
    "project_root": "fulgurite.core.project",
    "errors": "fulgurite.core.errors",
    "UserError": "fulgurite.core.errors",
    "ConfigError": "fulgurite.core.errors",
    "callbacks": "fulgurite.callbacks",
    "checkpoints": "fulgurite.checkpoints",
    "data": "fulgurite.data",
    "exact_resume": "fulgurite.exact_resume",
    "loggers": "fulgurite.loggers",
    "store": "fulgurite.store",
}

__all__ = [
    "ConfigError",
    "Run",
    "RunRecord",
    "SavedRun",
    "Store",
    "UserError",
    "build",
    "callbacks",
    "checkpoints",
    "compose",
    "data",
    "errors",
    "exact_resume",
    "harden",
    "load_run",
    "loggers",
    "main",
    "project_root",
    "session",
    "store",
    "validate",
]

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
