"""Sixty experiments in the manner of public projects, for the classes of `own_code`. Each trains as it stands."""

from __future__ import annotations

# on the command line of every one: small, quiet, and a metric that these models log
SMALL = (
    "monitor=val/loss", "monitor_mode=min", "callbacks.early_stopping=null", "callbacks.progress_bar=null",
    "callbacks.model_summary=null", "trainer.max_epochs=1", "+trainer.limit_train_batches=1",
    "+trainer.limit_val_batches=1", "+trainer.num_sanity_val_steps=0", "extras.print_config=false", "test=false",
)  # fmt: skip
POINTS = "data: {_target_: owncode.data.PointsData}\n"
NET = "{_target_: owncode.nets.Small, width: 4}"
LIT = f"{POINTS}model: {{_target_: owncode.lit.Lit, net: {NET}}}\n"
SGD = "{_target_: torch.optim.SGD, _partial_: true, lr: 0.1}"

CONFIGS = {
    # models
    "a model that shares net and optimizer with the shipped one": LIT,
    "a model of numbers only": f"{POINTS}model: {{_target_: owncode.lit.Plain, width: 16, lr: 0.1}}",
    "a fraction for int": f"{LIT}  \n".replace("}}", "}, lr: 0.5}"),
    "null for float": f"{POINTS}model: {{_target_: owncode.lit.Plain, lr: 1, dropout: null}}",
    "null for Tuple": f"{POINTS}model: {{_target_: owncode.lit.Plain, hidden_dims: null}}",
    "several for Tuple[int]": f"{POINTS}model: {{_target_: owncode.lit.Plain, hidden_dims: [2, 2, 2]}}",
    "a number for List[int]": f"{POINTS}model: {{_target_: owncode.lit.Plain, steps: 3}}",
    "None as people write it": f"{POINTS}model: {{_target_: owncode.lit.Plain, activation: None, dropout: None}}",
    "a number for text": f"{POINTS}model: {{_target_: owncode.lit.Plain, activation: 3}}",
    "three for Tuple[float, float]": f"{POINTS}model: {{_target_: owncode.lit.Plain, betas: [1, 2, 3]}}",
    "a config as one argument": (
        f"{POINTS}model: {{_target_: owncode.lit.FromCfg, cfg: {{net: {{width: 4}}, optim: {{lr: 0.1}}}}}}"
    ),
    "a config by interpolation": (
        f"{POINTS}vars: {{net: {{width: 4}}, lr: 0.1}}\n"
        "model: {_target_: owncode.lit.FromCfg, cfg: {net: '${vars.net}', optim: {lr: '${vars.lr}'}}}"
    ),
    "a whole config by interpolation": (
        f"{POINTS}vars: {{cfg: {{net: {{width: 4}}, optim: {{lr: 0.1}}}}}}\n"
        "model: {_target_: owncode.lit.FromCfg, cfg: '${vars.cfg}'}"
    ),
    "_recursive_ false": (
        f"{POINTS}model: {{_target_: owncode.lit.Lazy, _recursive_: false, net_cfg: {NET}, optimizer_cfg: {SGD}}}"
    ),
    "a dataclass": (
        f"{POINTS}model: {{_target_: owncode.lit.WithDataclass, net: {NET}, "
        "optim: {_target_: owncode.lit.OptimConfig, lr: 0.2}}"
    ),
    "a value that a Literal lacks": (
        f"{POINTS}model: {{_target_: owncode.lit.WithDataclass, net: {NET}, mode: medium, weights: 1}}"
    ),
    "**kwargs with names of its own": f"{POINTS}model: {{_target_: owncode.lit.Kwargs, net: {NET}, extra: 3, lr: 1}}",
    "**kwargs of any name": f"{POINTS}model: {{_target_: owncode.lit.Anything, width: 4, depth: 2, optimiser: adam}}",
    "a function that makes the model": f"{POINTS}model: {{_target_: owncode.lit.build_lit, name: x, lr: 0.1}}",
    "a loss": f"{LIT}".replace("}}", "}, loss: {_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.1}}"),
    "a loss of one's own": f"{LIT}".replace("}}", "}, loss: {_target_: owncode.lit.SmoothLoss, smoothing: 0.1}}"),
    "a loss by get_method": f"{LIT}".replace(
        "}}", "}, loss: {_target_: hydra.utils.get_method, path: torch.nn.functional.cross_entropy}}"
    ),
    # nets
    "a net in the shipped model": f"{POINTS}model: {{net: {NET}}}",
    "a class method": f"{POINTS}model: {{net: {{_target_: owncode.nets.Small.tiny, out: 10}}}}",
    "an Enum by value": f"{POINTS}model: {{net: {{_target_: owncode.nets.Small, act: gelu}}}}",
    "a net of torch": (
        f"{POINTS}model: {{net: {{_target_: torch.nn.Sequential, _args_: [{{_target_: torch.nn.Flatten}}, "
        "{_target_: torch.nn.Linear, _args_: [16, 10]}]}}"
    ),
    "a net of lazy modules": f"{POINTS}model: {{net: {{_target_: torch.nn.LazyLinear, out_features: 10}}}}",
    "a nested net": (
        f"{POINTS}model: {{net: {{_target_: owncode.nets.WithEncoder, "
        "encoder: {_target_: owncode.nets.Encoder, dims: [16, 8]}}}"
    ),
    "a nested net and head": (
        f"{POINTS}model: {{net: {{_target_: owncode.nets.WithEncoder, encoder: {{_target_: owncode.nets.Encoder, "
        "dims: [16, 8]}, head: {_target_: torch.nn.Linear, in_features: 8, out_features: 10}}}"
    ),
    "a factory in the manner of timm": (
        f"{POINTS}model: {{net: {{_target_: owncode.nets.create_model, model_name: wide, factor: 1, out: 10}}}}"
    ),
    "a registered factory": f"{POINTS}model: {{net: {{_target_: owncode.nets.registered_small, width: 3}}}}",
    "a class named like its base": f"{POINTS}model: {{net: {{_target_: owncode.nets.Linear, width: 10}}}}",
    "null for out of the parent": f"{POINTS}model: {{net: {{_target_: owncode.nets.Wide, dropout: null, factor: 1}}}}",
    "channels as the shipped net has them": (
        "defaults: [override /model: mnist_convnet]\n"
        f"{POINTS}model: {{net: {{_target_: owncode.nets.Blocks, kernel: 3}}}}"
    ),
    # optimizers and schedulers
    "another optimizer": f"{POINTS}model: {{net: {NET}, optimizer: {{_target_: torch.optim.RMSprop, alpha: 0.9}}}}",
    "an optimizer of one's own": f"{POINTS}model: {{net: {NET}, optimizer: {{_target_: owncode.lit.MySGD, lr: 0.5}}}}",
    "a partial optimizer": f"{LIT}".replace("}}", f"}}, optimizer: {SGD}}}"),
    "a factory of optimizers": f"{LIT}".replace("}}", "}, optimizer: {_target_: owncode.nets.make_optimizer, lr: 1}}"),
    "a class by get_class": f"{LIT}".replace(
        "}}", "}, optimizer: {_target_: hydra.utils.get_class, path: torch.optim.Adam}}"
    ),
    "cosine annealing": (
        f"{POINTS}model: {{net: {NET}, scheduler: {{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: 10}}}}"
    ),
    "steps of the training": (
        f"{POINTS}model: {{net: {NET}, scheduler_interval: step, scheduler: {{_target_: "
        "torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: '${steps:total}'}}"
    ),
    "milestones": (
        f"{POINTS}model: {{net: {NET}, scheduler: {{_target_: torch.optim.lr_scheduler.MultiStepLR, "
        "milestones: [1, 2], gamma: 0.5}}"
    ),
    "a scheduler of one's own": (
        f"{POINTS}model: {{net: {NET}, scheduler_interval: step, scheduler: {{_target_: owncode.lit.Warmup}}}}"
    ),
    "a scheduler function": f"{LIT}".replace(
        "}}", "}, scheduler: {_target_: owncode.lit.cosine, _partial_: true, warmup: 2.5}}"
    ),
    # data
    "fractions for Tuple[int, int, int]": (
        f"data: {{_target_: owncode.data.PointsData, train_val_test_split: [0.5, 0.25, 0.25]}}\nmodel: {{net: {NET}}}"
    ),
    "transforms of one's own": (
        "data:\n  _target_: owncode.data.PointsData\n  transforms:\n    _target_: owncode.data.Compose\n"
        "    transforms:\n      - {_target_: owncode.data.Noise, std: 0.2}\n"
        "      - {_target_: owncode.data.Scale, by: 2}\n"
        f"model: {{net: {NET}}}"
    ),
    "a numeric fold and a number for folds": (
        f"data: {{_target_: owncode.data.FolderData, root: ., fold: -1, folds: 1}}\nmodel: {{net: {NET}}}"
    ),
    "a number of workers by interpolation": (
        f"vars: {{workers: 0}}\ndata: {{_target_: owncode.data.FolderData, num_workers: '${{vars.workers}}', n: 40,\n"
        f"  train_val_test_split: [20, 10, 10]}}\nmodel: {{net: {NET}}}"
    ),
    "loaders as objects": (
        "data:\n  _target_: owncode.data.LoaderData\n  train: {_target_: torch.utils.data.DataLoader, batch_size: 4,\n"
        "    dataset: {_target_: owncode.data.Points, n: 16}}\n  val: {_target_: torch.utils.data.DataLoader,\n"
        f"    batch_size: 4, dataset: {{_target_: owncode.data.Points, n: 8, seed: 1}}}}\nmodel: {{net: {NET}}}"
    ),
    "data that take their config": (
        "data: {_target_: owncode.data.CfgData, cfg: {batch_size: 4, size: {n: 32}}, num_workers: null}\n"
        f"model: {{net: {NET}}}"
    ),
    "a function that makes the data": (
        f"data: {{_target_: owncode.data.make_data, cfg: {{n: 32}}, num_classes: 10}}\nmodel: {{net: {NET}}}"
    ),
    "a data set by override": f"defaults: [override /data: mnist]\n{LIT}",
    # callbacks and loggers
    "a callback of one's own": f"{LIT}callbacks: {{mine: {{_target_: owncode.callbacks.Print, every: 3, names: a}}}}",
    "a callback that replaces another": (
        f"{LIT}callbacks: {{model_checkpoint: {{_target_: owncode.callbacks.Best, monitor: val/loss, note: x}}}}"
    ),
    "a callback and a config": f"{LIT}callbacks: {{s: {{_target_: owncode.callbacks.Settings, cfg: {{interval: 3}}}}}}",
    "a function for a callback": f"{LIT}callbacks: {{f: {{_target_: owncode.callbacks.make_callback, every: 2}}}}",
    "settings of callbacks that are off": f"{LIT}callbacks: {{rich_progress_bar: {{refresh_rate: 1}}}}",
    "settings of a logger that is off": f"{LIT}logger: {{wandb: {{tags: [a], group: mnist}}, aim: {{experiment: x}}}}",
    "a logger of one's own": f"{LIT}logger: {{quiet: {{_target_: owncode.callbacks.Quiet, tags: a}}}}",
    "a long path of a logger": (
        f"{LIT}logger: {{csv: {{_target_: lightning.pytorch.loggers.csv_logs.CSVLogger, "
        "save_dir: '${paths.output_dir}', name: csv}}"
    ),
    # tags, values of one's own, trainer
    "tags as a list": f"{LIT}tags: [mnist, small]",
    "tags as a mapping": f"{LIT}tags: {{mnist: true}}",
    "values of one's own": (
        f"{POINTS}vars: {{width: 4, names: [a, b], deep: {{x: 1}}}}\n"
        "model: {_target_: owncode.lit.Plain, width: '${vars.width}'}"
    ),
    "a key that an interpolation reads": f"{POINTS}w: 4\nmodel: {{_target_: owncode.lit.Plain, width: '${{w}}'}}",
    "1e3 for a whole number": f"{LIT}trainer: {{max_steps: 1e3}}",
}
