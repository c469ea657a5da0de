"""A sharded model learns the same as in one process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from fulgurite.core.errors import ConfigError
from fulgurite.validation.validate import validate
from src.models.nets.convnet import SimpleConvNet
from src.models.nets.dense import SimpleDenseNet
from tests.conftest import SMALL, ComposeSmall
from tests.support.cli import only_run, read_json, run_cli

# plain gradient descent: Adam makes a step of full length of a gradient that is only rounding
SGD = ("model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.05", "model.optimizer.fused=false")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_sharded_within_its_layers_has_the_metrics_of_one_process(tmp_path: Path) -> None:
    results = {}
    for name in ("cpu", "tensor_parallel"):
        overrides = (f"trainer={name}", "trainer.accelerator=cpu", *SMALL, *SGD)
        done = run_cli("train", *overrides, logs=tmp_path / name, cold=True)
        assert done.returncode == 0, done.stderr
        results[name] = read_json(only_run(tmp_path / name) / "results.json")["metrics"]
    assert results["tensor_parallel"] == pytest.approx(results["cpu"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_net_without_a_sharding_plan_is_refused(tmp_path: Path) -> None:
    overrides = ("trainer=tensor_parallel", "trainer.accelerator=cpu", "model=mnist_convnet", *SMALL)
    done = run_cli("train", *overrides, logs=tmp_path, cold=True)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    assert "trainer.strategy.tensor_parallel_size=2: SimpleConvNet has no tensor_parallel_plan(). Add one" in line
    assert "Traceback" not in done.stderr


def test_the_plan_of_the_dense_net_names_each_of_its_linear_layers() -> None:
    net = SimpleDenseNet()
    modules = dict(net.named_modules())
    assert all(isinstance(modules[name], nn.Linear) for name in net.tensor_parallel_plan())
    assert len(net.tensor_parallel_plan()) == 4
    assert not hasattr(SimpleConvNet(), "tensor_parallel_plan")


@pytest.mark.parametrize("trainer", ["tensor_parallel", "fsdp"])
def test_a_fused_optimizer_of_a_sharded_model_is_refused_in_one_line(trainer: str, small: ComposeSmall) -> None:
    rule = "model.optimizer.fused=true: torch has no fused torch.optim.SGD for a model that is sharded over devices. "
    with pytest.raises(ConfigError, match=re.escape(f"{rule}Use model.optimizer.fused=false")) as refused:
        validate(small(f"trainer={trainer}", SGD[0]))
    assert len(refused.value.findings) == 1
    validate(small(f"trainer={trainer}", *SGD))
    validate(small(f"trainer={trainer}"))
    validate(small("trainer=ddp_sim", SGD[0]))
