"""The report of a search: twenty trials on two slots, some pruned and one failed, as a browser shows them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from fulgurite.reporting.report_cli import main
from fulgurite.reporting.sweep_analysis import analyse_sweep
from fulgurite.runs.sweep_ledger import read_events
from tests.support.browser import CHROMIUM, Browser
from tests.support.fake_sweep import leave_run
from tests.support.search import only_sweep, search, start, trial_results

PRUNER = "hydra.sweeper.pruner={_target_: optuna.pruners.MedianPruner, n_startup_trials: 5, n_warmup_steps: 1}"
SLOTS = ("hydra/launcher=local", "hydra.launcher.slots=3", "hydra.launcher.cpus=0", "hydra.sweeper.n_jobs=2")


def most_at_once(sweep: Path) -> int:
    """Return how many jobs ran at the same time, by the ledger."""
    running, most = 0, 0
    for event in read_events(sweep):
        running += {"started": 1, "done": -1, "failed": -1, "pruned": -1}.get(event["event"], 0)
        most = max(most, running)
    return most


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on PATH, e.g. Debian's package chromium")
def test_a_search_of_twenty_trials_has_a_page_that_renders_sorts_and_filters(tmp_path: Path) -> None:
    given = search(tmp_path, *SLOTS, PRUNER, n_trials=20, t3="raise")
    given = [override.replace("val/acc", "val/loss").replace("maximize", "minimize") for override in given]
    end = start(tmp_path, [*given, "trainer.max_epochs=3"])
    assert end.returncode == 1, end.stderr
    sweep = only_sweep(tmp_path)
    assert most_at_once(sweep) == 2, "three slots, of which the search may fill two"
    states = Counter(state for state, _ in trial_results(sweep).values())
    assert (sum(states.values()), states["FAIL"]) == (20, 1)
    assert states["PRUNED"] > 0
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_value"]

    assert main([str(sweep)]) == 0
    with Browser(tmp_path / "profile") as browser:
        browser.open(sweep / "report.html")
        assert min(browser.run("[...document.images].map(image => image.naturalWidth)")) > 200
        headline = browser.run("document.querySelector('ul').textContent")
        assert f"20 jobs in 20 groups, 1 failed, {states['PRUNED']} pruned" in headline
        assert "(min)" in headline
        rows = "[...document.querySelectorAll('#runs tbody tr:not([hidden])')]"
        heads = browser.run("[...document.querySelectorAll('#runs th')].map(head => head.textContent)")
        assert heads[:4] == ["job", "status", "model.optimizer.lr", "data.batch_size"]
        column = heads.index("val/loss")
        browser.run(f"document.querySelectorAll('#runs th button')[{column}].click()")
        shown = browser.run(f"{rows}.map(row => [row.cells[1].textContent, row.cells[{column}].dataset.value])")
        assert shown[-1][0] == "failed", "rows without a number stay last"
        numbers = [float(value) for _, value in shown[:-1]]
        assert numbers == sorted(numbers)
        assert min(float(value) for status, value in shown if status == "done") == pytest.approx(best)
        assert max(map(len, browser.run(f"{rows}.map(row => row.cells[2].textContent)"))) <= len("0.001234")
        browser.run("box = document.querySelector('#runs input'); box.value = 'pruned'")
        browser.run("box.dispatchEvent(new Event('input'))")
        assert browser.run(f"{rows}.length") == states["PRUNED"]
        reasons = "[...document.querySelectorAll('#failures tbody tr')].map(row => row.cells[2].textContent)"
        assert sorted(browser.run(reasons)) == sorted(
            reason for state, reason in trial_results(sweep).values() if state[0] != "C"
        )
        assert browser.run("document.documentElement.scrollWidth") <= 1280
        browser.picture(tmp_path / "page.png")
        assert (browser.console_errors, browser.requests) == ([], [])


@pytest.mark.parametrize(
    ("direction", "metric", "mode", "best"),
    [
        ("maximize", "val/loss", "max", "lr=2"),
        ("minimize", "val/acc", "min", "lr=0"),
        (["minimize", "maximize"], ["val/acc", "val/loss"], "min", "lr=0"),
        (None, "val/loss", "min", "lr=0"),
    ],
)
def test_the_direction_of_a_search_wins_over_the_name_of_its_metric(
    tmp_path: Path, direction: Any, metric: Any, mode: str, best: str
) -> None:
    for job in range(3):
        run = leave_run(tmp_path / str(job), [f"lr={job}"], {"val/acc": job / 4, "val/loss": job / 4})
        (run / ".hydra/config.yaml").write_text(yaml.safe_dump({"optimized_metric": metric}))
    sweeper = {"direction": direction} if direction else {}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"sweeper": sweeper}}))
    summary = analyse_sweep(tmp_path)
    assert summary.best is not None
    assert (summary.mode, summary.best.name) == (mode, best)
