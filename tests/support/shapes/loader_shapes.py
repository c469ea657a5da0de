"""Shapes of samplers and loaders."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use


def _data(kind: str, name: str, *, num_workers: int = 0, persistent: bool = False, **more: Any) -> Shape:
    data = use("loaders.Data", kind=kind, num_workers=num_workers, persistent=persistent)
    return Shape(name, more.pop("group", "samplers and loaders"), data=data, **more)


SEVERAL = "several loaders"
LOADERS = [
    _data("sequential", "DataLoader(ds)"),
    _data("shuffle", "DataLoader(ds, shuffle=True)"),
    _data("drop_last", "drop_last=True", kill_after=10),
    _data("replacement", "RandomSampler(replacement=True, num_samples=n)"),
    _data("num_samples", "RandomSampler(num_samples=n)"),
    _data("own_generator", "RandomSampler(generator=g)"),
    _data("loader_generator", "DataLoader(generator=g)"),
    _data("subset", "SubsetRandomSampler"),
    _data("weighted", "WeightedRandomSampler"),
    _data("batch_sampler", "batch_sampler=BatchSampler(RandomSampler(ds), n, False)"),
    _data("batch_sampler_drop", "batch_sampler=BatchSampler(SequentialSampler(ds), n, True)", kill_after=9),
    _data("sampler_torch", "a sampler with a torch generator of its own"),
    _data("sampler_numpy", "a sampler with a NumPy generator of its own"),
    _data("sampler_python", "a sampler with a random.Random of its own"),
    _data("sampler_global", "a sampler that draws from the global generator"),
    _data("buckets", "a batch sampler with set_epoch"),
    _data("buckets_of_own", "a batch sampler with a generator of its own"),
    _data("no_batching", "batch_size=None of batches made before"),
    _data("collate", "a random collate_fn"),
    _data("own_loader", "a subclass of DataLoader"),
    _data("stream", "IterableDataset", expect="named", line="Stream: it has no state_dict()"),
    _data("resumable_stream", "IterableDataset with state_dict"),
    _data("stream", "IterableDataset in a worker", num_workers=1, expect="named", line="it has no state_dict()"),
    _data("stateful", "torchdata's StatefulDataLoader", needs="torchdata"),
    _data("stateful_stream", "torchdata's StatefulDataLoader over an IterableDataset", needs="torchdata"),
    _data(
        "stateful",
        "torchdata's StatefulDataLoader with workers",
        num_workers=2,
        needs="torchdata",
        expect="named",
        line="its 2 workers draw from global",
    ),
    _data("shuffle", "workers", num_workers=2),
    _data("shuffle", "persistent workers", num_workers=2, persistent=True),
    _data("dict_of_two", "a dict of a short and a long loader", group=SEVERAL),
    _data("list_of_two", "a list of two loaders", group=SEVERAL),
    _data("nested", "nested loaders", group=SEVERAL),
    _data("min_size", "CombinedLoader(min_size)", group=SEVERAL),
    _data("max_size", "CombinedLoader(max_size)", group=SEVERAL),
    _data("max_size_cycle", "CombinedLoader(max_size_cycle)", group=SEVERAL),
    _data("one_after_another", "CombinedLoader(sequential)", group=SEVERAL, expect="refused", line="sequential"),
]
