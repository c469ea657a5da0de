"""Score a checkpoint on the test set: `python src/eval.py ckpt_path=<file or https URL>`."""

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


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the given weights and return the metrics.

    Args:
        cfg: A composed config of `configs/eval.yaml`.

    Returns:
        Plain numbers by metric name.
    """
    with session(cfg) as record:
        validate(cfg)
        show_config(cfg)

        from src.run.build import build  # heavy, so only after the config was found right
        from src.run.weights import given_weights

        set_seed(cfg.get("seed"))
        run = build(cfg)
        given = given_weights(cfg, run.model)
        record.describe(run)

        run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=given, weights_only=True, verbose=False)
        record.add_results(run.trainer.callback_metrics, weights=given)
        return record.conclude(cfg.get("optimized_metric"))


@hydra.main(**MAIN, config_path=str(project_root() / "configs"), config_name="eval")
def main(cfg: DictConfig) -> float | list[float] | None:
    """Run `evaluate` on the composed config; the number is what a sweep optimises."""
    return run_task(evaluate, cfg)


if __name__ == "__main__":
    enter(main)
