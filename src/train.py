"""Train a model and test its best weights, e.g. `python src/train.py experiment=example`."""

from __future__ import annotations

import sys
from pathlib import Path

# started as a file, the path begins with src/, where `import data` would find our rooms: put the root there instead
if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hydra
from omegaconf import DictConfig

from src.base.root import project_root
from src.run.compat import MAIN
from src.run.session import enter, run_task, session, set_seed
from src.run.show import show_config
from src.run.validate import validate


def train(cfg: DictConfig) -> dict[str, float]:
    """Train, test the best weights, and return the final metrics as plain numbers by name.

    Args:
        cfg: A composed config of `configs/train.yaml`.
    """
    with session(cfg) as record:
        validate(cfg)
        show_config(cfg)

        from src.run.build import build  # heavy, so only after the config was found right
        from src.run.resume.begin import begin
        from src.run.weights import weights_to_test

        set_seed(cfg.get("seed"))
        run = build(cfg)
        given = begin(run)
        record.describe(run)

        if cfg.get("train"):
            run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=given, weights_only=True)
            record.add_results(run.trainer.callback_metrics)

        if cfg.get("test"):
            best = weights_to_test(run.trainer, bool(cfg.get("train")), given)
            run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=best, weights_only=True, verbose=False)
            record.add_results(run.trainer.callback_metrics, weights=best)

        return record.conclude(cfg.get("optimized_metric"))


@hydra.main(**MAIN, config_path=str(project_root() / "configs"), config_name="train")
def main(cfg: DictConfig) -> float | list[float] | None:
    """Run `train` on the composed config; the number is what a sweep optimises."""
    return run_task(train, cfg)


if __name__ == "__main__":
    enter(main)
