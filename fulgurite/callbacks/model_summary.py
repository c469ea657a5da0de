"""The summary of a model: modules with parameters, and the number of their parameters."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary as Summary
from torch import nn
from torch.nn.parameter import UninitializedParameter

from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


class ParameterSummary(ModelSummary):
    """Logs a table of the modules that have parameters, `max_depth` levels deep: -1 shows all, 0 none."""

    def __init__(self, max_depth: int = 1) -> None:
        super().__init__(max_depth=max_depth)
        self.max_depth = max_depth

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the table."""
        if not self.max_depth:
            return
        if "deepspeed" in type(trainer.strategy).__module__:  # it has counts of its own
            super().on_fit_start(trainer, pl_module)
            return
        summary = Summary(pl_module, max_depth=self.max_depth)
        columns = {
            "name": summary.layer_names,
            "type": summary.layer_types,
            "parameters": [_count(module) for _, module in summary.named_modules],
            "mode": ["train" if mode else "eval" for mode in summary.training_modes],
        }
        if pl_module.example_input_array is not None:
            columns |= {"input": [*map(str, summary.in_sizes)], "output": [*map(str, summary.out_sizes)]}
            columns["FLOPs"] = [f"{sum(flops.values()):.4g}" for flops in summary.flop_counts.values()]
            if not summary.total_flops:
                del columns["FLOPs"]
        rows = [row for row in zip(*columns.values(), strict=True) if row[2] != "0"]
        widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
        lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in (columns, *rows)]
        log.info("model\n%s", "\n".join([*(lines if rows else ()), _total(pl_module)]))


def _count(module: nn.Module) -> str:
    parameters = list(module.parameters())
    if any(isinstance(parameter, UninitializedParameter) for parameter in parameters):
        return "not initialised yet"
    return f"{sum(parameter.numel() for parameter in parameters):,}"


def _total(model: nn.Module) -> str:
    """Return e.g. `  68,000 parameters, 8,000 of them frozen, 0.27 MB`."""
    known = [parameter for parameter in model.parameters() if not isinstance(parameter, UninitializedParameter)]
    frozen = sum(parameter.numel() for parameter in known if not parameter.requires_grad)
    megabytes = sum(parameter.numel() * parameter.element_size() for parameter in known) / 1e6
    counts = f"{sum(parameter.numel() for parameter in known):,} parameters"
    return f"  {counts}, {f'{frozen:,} of them frozen' if frozen else 'all trained'}, {megabytes:.4g} MB"
