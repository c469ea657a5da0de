"""For data modules: folds, stratified splits, the batch size of one rank, checked downloads, IDX files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.core.download import download
    from fulgurite.data.batch_size import device_batch_size
    from fulgurite.data.idx import IdxFile, is_prepared, map_idx, prepare_idx
    from fulgurite.data.splits import fold_findings, split_fold, stratified_split

__all__ = [
    "IdxFile",
    "device_batch_size",
    "download",
    "fold_findings",
    "is_prepared",
    "map_idx",
    "prepare_idx",
    "split_fold",
    "stratified_split",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "IdxFile": "fulgurite.data.idx",
        "device_batch_size": "fulgurite.data.batch_size",
        "download": "fulgurite.core.download",
        "fold_findings": "fulgurite.data.splits",
        "is_prepared": "fulgurite.data.idx",
        "map_idx": "fulgurite.data.idx",
        "prepare_idx": "fulgurite.data.idx",
        "split_fold": "fulgurite.data.splits",
        "stratified_split": "fulgurite.data.splits",
    },
)
