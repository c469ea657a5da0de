"""Every experiment of the gallery, killed within an epoch and resumed, ends as if it had not been killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gallery.test_experiments import EXPERIMENTS, LARGE, overrides_of
from tests.support.shapes.runs import judge
from tests.support.shapes.shape import HERE, QUIET, Shape

# where the data would have a single batch in an epoch
MORE = {"nadaraya_watson": ["data.batch_size=10"]}
CLOCKS = ("seq2seq", "bahdanau", "transformer", "rnn", "gru", "lstm", "bidirectional_lstm", "deep_lstm", "rnn_scratch")


@dataclass(frozen=True)
class Experiment(Shape):
    """An experiment of the gallery as the harness trains a shape."""

    def arguments(self) -> list[str]:
        """Return the overrides of a first start."""
        return [
            f"experiment=gallery/{self.name}",
            *(
                text
                for text in QUIET
                if not text.startswith(("~data", "~model", "~callbacks", "callbacks.model_check"))
            ),
            "trainer.accelerator=cpu",
            "+trainer.limit_train_batches=8",
            "+trainer.limit_val_batches=2",
            "++trainer.check_val_every_n_epoch=1",
            f"callbacks.last_checkpoint.every_n_train_steps={self.save_every}",
            f"+callbacks.recorder._target_={HERE}.recorder.Recorder",
            *self.overrides,
        ]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted(set(EXPERIMENTS) - LARGE))
def test_a_killed_and_resumed_experiment_ends_as_the_uninterrupted_one(experiment: str, tmp_path: Path) -> None:
    overrides = [*overrides_of(experiment, tmp_path), *MORE.get(experiment, [])]
    overrides += ["callbacks.token_rate=null"] if experiment in CLOCKS else []  # it keeps readings of the clock
    outcome = judge(Experiment(experiment, "gallery", overrides=overrides, kill_after=7, save_every=2), tmp_path)
    report = "\n".join([*(f"{kind}: {line}" for kind, line in outcome.differences.items()), *outcome.lines])
    assert outcome.verdict == "equal", report
