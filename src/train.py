"""Train a model and test its best weights: `python src/train.py experiment=example`."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: put the project's root on the path in place of src/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from omegaconf import DictConfig

import fulgurite


@fulgurite.main(config_name="train")
def train(cfg: DictConfig) -> dict[str, float]:
    """Train, test the best weights, and return the metrics by name."""
    with fulgurite.session(cfg) as session:
        fulgurite.validate(cfg)
        run = fulgurite.build(cfg)
        ckpt_path = run.restore()
        session.log_hyperparameters(run)

        if cfg.train:
            run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=ckpt_path, weights_only=True)
            session.log_results(run.trainer.callback_metrics)

        if cfg.test:
            best = run.checkpoint_to_test(ckpt_path)
            run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=best, weights_only=True, verbose=False)
            session.log_results(run.trainer.callback_metrics, weights=best)

        return session.finish(cfg.optimized_metric)


if __name__ == "__main__":
    train()
