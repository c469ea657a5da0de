"""Export the progress of a training to Prometheus: served, pushed to a gateway, or written for node_exporter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fulgurite.callbacks.prometheus_export import FAILURE, SUCCESS, Durations, Reloads, Sender
from fulgurite.callbacks.step_log import learning_rates
from fulgurite.compat.lightning import is_accumulating
from fulgurite.core.context import current_context, setting
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.core.redact import hide_secrets
from fulgurite.sources.reader import need_library

log = RankedLogger(__name__)
log_of_each_rank = RankedLogger(__name__, every_rank=True)


class PrometheusMetrics(Callback):
    """Serves `/metrics` while a training runs; each Trainer has a registry of its own.

    A callback with a list `reload_observers`, such as `fulgurite.live.LiveControl`, gets `observe_reload`, and its
    `sources` are counted from the start. Metrics of your own go to `registry`, which exists while the training runs:
    `store.metrics.register(callback.registry)`.

    Args:
        port: Port of the first process of a machine; each further one takes the next. A busy port is replaced by a free
            one, with a warning. 0: any free port. None: nothing is served.
        address: Network address to serve on. `0.0.0.0` lets other machines read the metrics, without a password.
        gateway: Address of a Pushgateway, e.g. `localhost:9091`. What was pushed is deleted at the end.
        textfile: File for the textfile collector of node_exporter, which ends with `.prom`; it is removed at the end.
        interval_seconds: Seconds between two pushes, and between two writes of the file; above 0.
        labels: Labels of `training_run_info` beside run, config hash and rank, e.g. the task's name.

    Example:
        >>> trainer = Trainer(callbacks=[PrometheusMetrics(port=9464)])
    """

    def __init__(
        self,
        port: int | None = 9464,
        address: str = "127.0.0.1",
        gateway: str | None = None,
        textfile: str | Path | None = None,
        interval_seconds: float = 15.0,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        if not interval_seconds > 0:
            raise UserError(f"{_argument('interval_seconds', interval_seconds)}: is not above 0. Set e.g. 15.")
        self.port, self.address, self.gateway = port, address, gateway
        self.textfile = Path(textfile) if textfile is not None else None
        self.interval_seconds = interval_seconds
        self.labels = {str(name): str(value) for name, value in (labels or {}).items()}
        self.registry: Any = None  # a CollectorRegistry, while a training runs
        self.url = ""  # of the metrics, while they are served
        self._trainer: Trainer | None = None
        self._info: dict[str, str] = {}
        self._steps, self._reloads = Durations(), dict[str, Reloads]()
        self._checkpoints = {SUCCESS: 0, FAILURE: 0}
        self._samples, self._waited, self._last_step = 0, 0.0, 0.0
        self._metrics: dict[str, float] = {}
        self._began, self._batch_ended, self._step_seconds = 0.0, 0.0, 0.0
        self._close: list[Callable[[], None]] = []

    # hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to serve, push or write.

        Raises:
            UserError: prometheus_client is not installed, or this machine does not have the address or the port.
        """
        if stage != "fit":
            return
        library = need_library("prometheus_client", "prometheus", "callbacks.prometheus")
        self.teardown()
        self._trainer, self.registry = trainer, library.CollectorRegistry()
        record = current_context().record
        fields = record.fields if record is not None else {}
        run = record.folder.name if record is not None else ""
        self._info = {"run_id": run, "config_hash": str(fields.get("config_hash", "")), "rank": str(rank())}
        self._count_checkpoints(trainer)
        for callback in vars(trainer)["callbacks"]:
            if isinstance(observers := getattr(callback, "reload_observers", None), list):
                observers.append(self.observe_reload)
                self._close.append(partial(observers.remove, self.observe_reload))
                for source in getattr(callback, "sources", ()):
                    self._reloads.setdefault(hide_secrets(str(source)), Reloads())
        self.registry.register(self)
        if self.port is not None:
            self._serve(library, self.port + trainer.local_rank if self.port else 0)
        if self.gateway is not None or self.textfile is not None:
            job = self.labels.get("task_name", "training")
            grouping = {"instance": self._info["run_id"] or "run", "rank": self._info["rank"]}
            sender = Sender(self.registry, self.gateway, job, grouping, self.textfile)
            self._close.append(sender.start(self.interval_seconds))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure."""
        self._batch_ended = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the metrics of the epoch before; the thread that serves must not compute them."""
        self._take_metrics(trainer)
        self._batch_ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the seconds since the last batch: the training waited for data."""
        self._began = time.perf_counter()
        self._waited += self._began - self._batch_ended
        self._samples += num_samples(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step when its last batch has ended."""
        self._batch_ended = time.perf_counter()
        self._step_seconds += self._batch_ended - self._began
        if not is_accumulating(trainer):
            self._steps.observe(self._step_seconds)
            self._step_seconds, self._last_step = 0.0, time.time()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the metrics of the validation."""
        self._take_metrics(trainer)
        self._batch_ended = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the metrics of the last epoch."""
        self._take_metrics(trainer)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Stop to serve, delete what was pushed and the file."""
        while self._close:
            self._close.pop()()
        self._trainer = self.registry = None

    on_exception = teardown  # Lightning does not call `teardown` after each exception

    def observe_reload(self, source: str, result: str, seconds: float) -> None:
        """Count a live edit, whose result is `success` or `failure`."""
        reloads = self._reloads.setdefault(hide_secrets(source), Reloads())
        reloads.counts[result] += 1
        reloads.durations.observe(seconds)

    # metrics

    def collect(self) -> Iterator[Any]:
        """Yield the metrics as prometheus_client wants them; it calls this for each scrape, in another thread."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        trainer = self._trainer
        if trainer is None:
            return
        info = {**self.labels, **self._info}
        gauge = GaugeMetricFamily("training_run_info", "The run; its value is always 1.", labels=list(info))
        gauge.add_metric(list(info.values()), 1)
        yield gauge
        yield GaugeMetricFamily("training_global_step", "Optimizer steps.", value=trainer.global_step)
        yield GaugeMetricFamily("training_epoch", "The epoch, from 0.", value=trainer.current_epoch)
        when = "Unix time at which the last optimizer step ended; 0 before the first."
        yield GaugeMetricFamily("training_last_step_timestamp_seconds", when, value=self._last_step)
        rates = GaugeMetricFamily("training_learning_rate", "Learning rate by parameter group.", labels=["group"])
        for name, rate in learning_rates(trainer.optimizers).items():
            rates.add_metric([name.removeprefix("lr-")], rate)
        yield rates
        named = GaugeMetricFamily("training_metric", "The newest value of each logged metric.", labels=["name"])
        for name, value in self._metrics.items():
            named.add_metric([name], value)
        yield named
        steps = HistogramMetricFamily("training_step_duration_seconds", "Duration of optimizer steps, without data.")
        steps.add_metric([], self._steps.cumulated(), self._steps.total)
        yield steps
        yield CounterMetricFamily("training_samples", "Samples trained on by this process.", value=self._samples)
        yield CounterMetricFamily("training_data_wait_seconds", "Seconds waited for batches.", value=self._waited)
        saved = CounterMetricFamily("training_checkpoints", "Checkpoints by result.", labels=["result"])
        for result, count in self._checkpoints.items():
            saved.add_metric([result], count)
        yield saved
        edits = CounterMetricFamily("training_live_reloads", "Live edits by result.", labels=["source", "result"])
        seconds = HistogramMetricFamily("training_live_reload_duration_seconds", "Of live edits.", labels=["source"])
        for source, reloads in list(self._reloads.items()):
            for result, count in reloads.counts.items():
                edits.add_metric([source, result], count)
            seconds.add_metric([source], reloads.durations.cumulated(), reloads.durations.total)
        yield edits
        yield seconds

    def _take_metrics(self, trainer: Trainer) -> None:
        self._metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}

    def _count_checkpoints(self, trainer: Trainer) -> None:
        """Count the calls of `trainer.save_checkpoint`; an asynchronous save counts when it is handed over."""
        save = trainer.save_checkpoint

        def save_checkpoint(*args: Any, **kwargs: Any) -> None:
            try:
                save(*args, **kwargs)
            except BaseException:
                self._checkpoints[FAILURE] += 1
                raise
            self._checkpoints[SUCCESS] += 1

        vars(trainer)["save_checkpoint"] = save_checkpoint
        self._close.append(lambda: vars(trainer).pop("save_checkpoint", None))

    # ways out

    def _serve(self, library: Any, port: int) -> None:
        if not 0 <= port < 1 << 16:
            raise UserError(f"{_argument('port', port)}: is not from 0 to 65535. Set e.g. 9464.")
        try:
            server, thread = library.start_http_server(port, self.address, self.registry)
        except (OSError, UnicodeError) as error:
            server, thread = self._serve_elsewhere(library, port, error)
        self.url = f"http://{self.address}:{server.server_port}/metrics"
        log.info("metrics for Prometheus at %s", self.url)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()
            self.url = ""

        self._close.append(close)

    def _serve_elsewhere(self, library: Any, port: int, error: Exception) -> Any:
        """Serve on any free port; that fails where the address is not one of this machine."""
        reason = getattr(error, "strerror", None) or error
        try:
            started = library.start_http_server(0, self.address, self.registry)
        except (OSError, UnicodeError):
            remedy = "Set one of this machine, e.g. 127.0.0.1"
            raise UserError(f"{_argument('address', self.address)}: {reason}. {remedy}.") from error
        log_of_each_rank.warning("%s: %s. The metrics have another port.", _argument("port", port), reason)
        return started


def _argument(name: str, value: object) -> str:
    return setting(f"callbacks.prometheus.{name}={value}", f"PrometheusMetrics({name}={value!r})")


def num_samples(batch: Any) -> int:
    """Return the length of the first tensor in a batch; 0 without one."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    return next((size for part in parts if (size := num_samples(part))), 0)
