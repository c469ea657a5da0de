"""Test a checkpoint: `python src/eval.py run=<run directory>` or `ckpt_path=<file or https URL>`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: put the project's root on the path in place of src/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig

import fulgurite


@fulgurite.main(config_name="eval")
def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the weights of a checkpoint and return the metrics by name."""
    with fulgurite.session(cfg) as session:
        fulgurite.validate(cfg)
        run = fulgurite.build(cfg)
        ckpt_path = run.restore()
        session.log_hyperparameters(run)

        run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=ckpt_path, weights_only=True, verbose=False)
        session.log_results(run.trainer.callback_metrics, weights=ckpt_path)
        return session.finish(cfg.get("optimized_metric"))


if __name__ == "__main__":
    evaluate()
