"""P11: train a language model of the gallery, and the same net in a bare loop."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import mkdtemp
from time import process_time
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from fulgurite.config.compose import compose
from fulgurite.engine.build import Run, build
from scripts.bench.measure import Row, Threshold, measure_in_turns, ratios

CELLS = ("rnn", "gru", "lstm")


def language_rows(epochs: int, repeats: int, folder: Path) -> list[Row]:
    """Measure tokens per CPU second over whole trainings, saves, validation and the start of `fit` included.

    Args:
        epochs: Of each training; one has 8 batches of 32 x 35 characters.
        repeats: Number of measured rounds.
        folder: For the run directories.
    """
    rows = []
    for cell in CELLS:

        def by_trainer(cell: str = cell) -> float:
            run = _build(cell, epochs, folder)
            start = process_time()
            run.trainer.fit(run.model, datamodule=run.datamodule)
            return process_time() - start

        def by_loop(cell: str = cell) -> float:
            run = _build(cell, epochs, folder)
            start = process_time()
            _bare_loop(run, epochs)
            return process_time() - start

        found = measure_in_turns({"bare loop, s": by_loop, "gallery, s": by_trainer}, repeats)
        what = f"{cell} of 256, {epochs} epochs, tokens per CPU second over those of a bare loop"
        rows.append(Row("P11", what, "x", ratios(*found.values()), Threshold(0.7, at_least=True), found))
    return rows


def _build(cell: str, epochs: int, folder: Path) -> Run:
    overrides = [f"experiment=gallery/{cell}", f"trainer.max_epochs={epochs}", "trainer.accelerator=cpu"]
    quiet = ["extras.print_config=false", "trainer.enable_progress_bar=false", "callbacks.progress_bar=null"]
    cfg = compose([*overrides, *quiet], output_dir=Path(mkdtemp(dir=folder)))
    with redirect_stdout(io.StringIO()):
        return build(cfg)


def _bare_loop(run: Run, epochs: int) -> None:
    """Train the net as the task does, and take its loss once an epoch."""
    net, data = run.model.net, run.datamodule
    assert isinstance(net, torch.nn.Module)
    assert data is not None
    data.setup("fit")
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    loader: Any = data.train_dataloader()
    for _ in range(epochs):
        state, losses = None, torch.zeros(())
        for tokens, targets in loader:
            scores, state = net(tokens, state)
            state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
            loss = cross_entropy(scores.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses += loss.detach()
        losses.item()
