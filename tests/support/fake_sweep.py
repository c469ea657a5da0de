"""Write the files of runs and sweeps with known numbers, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def leave_run(folder: Path, overrides: Sequence[str], metrics: Mapping[str, float] | None, **facts: Any) -> Path:
    """Write the files of a run; `metrics` None is a run that failed before its results."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    record = {
        "task_name": "train",
        "status": "failed" if metrics is None else "done",
        "reason": None,
        "start": "2026-01-01T10:00:00+00:00",
        "end": "2026-01-01T10:01:30+00:00",
        "host": "here",
        "tags": ["dev"],
        "sweep": None,
    }
    (folder / "run.json").write_text(json.dumps({**record, **facts}))
    if metrics is not None:
        (folder / "results.json").write_text(json.dumps({"metrics": metrics, "weights": None}))
    return folder


def leave_sweep(folder: Path) -> Path:
    """Write a sweep of 20 jobs: two sizes, two learning rates, five seeds; job 19 has failed."""
    for job in range(20):
        size, lr, seed = (64, 128)[job // 10], (0.1, 0.01)[job // 5 % 2], job % 5
        acc = 0.8 + (0.05 if size == 128 else 0) + (0.02 if lr == 0.01 else 0) + 0.01 * ((seed * 2 + job // 5) % 5 - 2)
        overrides = ["experiment=example", f"model.net.lin1_size={size}", f"model.optimizer.lr={lr}", f"seed={seed}"]
        failed = job == 19
        metrics = None if failed else {"test/acc": acc - 0.01, "val/acc_best": acc, "val/loss": 1 - acc}
        reason = "RuntimeError: <b>boom</b>" if failed else None
        run = leave_run(folder / str(job), overrides, metrics, reason=reason, sweep={"dir": str(folder), "job": job})
        rows = [f"{epoch},{epoch * 10},{acc - 0.1 / (epoch + 1)},{1 / (epoch + 1)}" for epoch in range(6)]
        (run / "metrics.csv").write_text("\n".join(["epoch,step,val/acc,val/loss", *rows]) + "\n")
    return folder
