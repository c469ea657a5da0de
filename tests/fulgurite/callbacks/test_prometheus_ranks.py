"""Two processes of one run: each serves its own metrics, on the port after that of the rank before."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.callbacks.prometheus import PrometheusMetrics
from tests.support.cli import WARM
from tests.support.toy_task import BATCH, IMAGES, OrdinaryData, OrdinaryModel


def two_free_ports() -> int:
    """Return the first of two neighbouring ports that nobody listens on."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                other.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class ScrapeBoth(Callback):
    """Reads the ports of both ranks on rank 0 in the middle of the second epoch, while both wait."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) != (1, 2):
            return
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            urls = [f"http://127.0.0.1:{self.port + rank}/metrics" for rank in range(2)]
            pages = [urllib.request.urlopen(url, timeout=20).read().decode() for url in urls]
            (self.folder / "pages.json").write_text(json.dumps(pages))
        trainer.strategy.barrier()


def train(port: int, folder: Path) -> None:
    """Train for two epochs on two ranks."""
    metrics = PrometheusMetrics(port=port, labels={"task_name": "mine"})
    trainer = Trainer(
        max_epochs=2,
        callbacks=[metrics, ScrapeBoth(port, folder)],
        accelerator="cpu",
        strategy="ddp_fork",
        devices=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(OrdinaryModel(), datamodule=OrdinaryData())


@pytest.mark.slow
def test_both_ranks_answer_on_a_port_of_their_own_while_they_train(tmp_path: Path) -> None:
    port = two_free_ports()
    process = WARM.Process(target=train, args=(port, tmp_path))
    process.start()
    process.join(180)
    assert process.exitcode == 0
    pages = json.loads((tmp_path / "pages.json").read_text())
    steps = -(-IMAGES // (2 * BATCH)) + 3  # of an epoch and a part of the second
    for rank, page in enumerate(pages):
        [info] = [line for line in page.splitlines() if line.startswith("training_run_info{")]
        assert f'rank="{rank}"' in info
        assert 'task_name="mine"' in info
        assert f"training_global_step {steps}.0" in page.splitlines()
        assert f"training_samples_total {steps * BATCH - (BATCH - IMAGES // 2 % BATCH) % BATCH}.0" in page.splitlines()
    for number in (port, port + 1):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", number)) != 0  # over
