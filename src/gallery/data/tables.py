"""Tables of numbers: airfoil self-noise, and house prices with folds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.data import device_batch_size, fold_findings
from src.data.batches import identity_collate
from src.gallery.data.tensors import Inputs, Rows, Split, Splits
from src.gallery.data.text_files import TextFile, read_text

AIRFOIL = TextFile(
    "airfoil_self_noise.dat",
    ("https://d2l-data.s3-accelerate.amazonaws.com/airfoil_self_noise.dat",),
    "76e5be1548fd8222e5074cf0faae75edff8cf93f",  # pragma: allowlist secret
)
KAGGLE_TRAIN = TextFile(
    "kaggle_house_pred_train.csv",
    ("https://d2l-data.s3-accelerate.amazonaws.com/kaggle_house_pred_train.csv",),
    "585e9cc93e70b39160e7921475f9bcd7d31219ce",  # pragma: allowlist secret
)
KAGGLE_TEST = TextFile(
    "kaggle_house_pred_test.csv",
    ("https://d2l-data.s3-accelerate.amazonaws.com/kaggle_house_pred_test.csv",),
    "fa19780a7b011d9b009e8bff8e99922a8ee2eb90",  # pragma: allowlist secret
)
MISSING = ("", "NA")


def airfoil(
    generator: torch.Generator,  # noqa: ARG001 - the form of a source
    data_dir: str,
    num_examples: int = 1500,
    local_dirs: Sequence[str] = (),
) -> Splits:
    """Return NASA's airfoil self-noise: 5 inputs and the sound level `[N, 1]`, each column standardised, section 11.5.

    Validation uses the training examples: chapter 11 compares how fast optimizers lower the training loss, whose
    least value is 0.2417 as half of the squared error.

    Args:
        generator: Not used; the data is fixed.
        data_dir: Folder of the file, which is downloaded once.
        num_examples: The first rows that are used, of 1,503.
        local_dirs: Folders that are searched before a download.
    """
    folders = [Path(folder).expanduser() for folder in local_dirs]
    lines = read_text(Path(data_dir), AIRFOIL, folders).splitlines()
    table = torch.tensor([[float(cell) for cell in line.split("\t")] for line in lines], dtype=torch.float64)
    table = ((table - table.mean(dim=0)) / table.std(dim=0, correction=0)).float()[:num_examples]
    split = Split((table[:, :-1],), table[:, -1:])
    return Splits(split, split)


def features_of(rows: Sequence[dict[str, str]]) -> Tensor:
    """Return the columns of a table as numbers `[N, F]`, section 4.10.

    A column of numbers is standardised, and a missing number becomes the mean, 0. A column of texts becomes one
    column of 0 and 1 for each text, and one for a missing text if one is missing.

    Args:
        rows: Column to text. An empty text and `NA` count as missing.
    """
    columns = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        try:
            numbers = torch.tensor([float("nan" if cell in MISSING else cell) for cell in cells], dtype=torch.float64)
        except ValueError:
            texts = sorted({"" if cell in MISSING else cell for cell in cells})
            columns += [[float(cell == text or (not text and cell in MISSING)) for cell in cells] for text in texts]
        else:
            known = numbers[~numbers.isnan()]
            columns.append(((numbers - known.mean()) / known.std()).nan_to_num(0.0).tolist())
    return torch.tensor(columns).T.contiguous()


class HousePrices(LightningDataModule):
    """Prices of houses in Ames, Iowa, with K folds of neighbouring rows, section 4.10.

    A batch is `(features [B, F] float32, prices [B, 1] float32 in dollars)`. The net needs F: `num_features`.

    Args:
        data_dir: Folder of the files; Kaggle's two are downloaded there once, or copied by you.
        file: Another table with one house per row, in `data_dir`. None uses Kaggle's two files.
        target: Column of the price.
        id_column: Column that numbers the houses; it is not a feature.
        drop: Other columns that are not features.
        num_features: Features that the table has, F: 331 for Kaggle's files.
        fold: The fold that is held out for validation, 0 to `num_folds - 1`. None trains on all and validates on the
            same.
        num_folds: Number of folds.
        batch_size: Global batch size. It must be divisible by the number of data-parallel ranks.
    """

    def __init__(
        self,
        data_dir: str,
        file: str | None = None,
        target: str = "SalePrice",
        id_column: str = "Id",
        drop: Sequence[str] = (),
        num_features: int = 331,
        fold: int | None = None,
        num_folds: int | None = None,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        if findings := fold_findings(fold, num_folds, None):
            raise ConfigError(findings)
        self.data_dir, self.file = Path(data_dir), file
        self.target, self.id_column, self.drop = target, id_column, set(drop)
        self.num_features, self.fold, self.num_folds, self.batch_size = num_features, fold, num_folds, batch_size

    def _rows(self) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Return the houses with a price and those without."""
        files = [TextFile(self.file)] if self.file else [KAGGLE_TRAIN, KAGGLE_TEST]
        tables = [list(csv.DictReader(read_text(self.data_dir, file).splitlines())) for file in files]
        return tables[0], tables[1] if len(tables) > 1 else []

    def prepare_data(self) -> None:
        """Download Kaggle's files, once per machine."""
        self._rows()

    def setup(self, stage: str | None = None) -> None:
        """Read the table, the same for every `stage` and on every rank."""
        if hasattr(self, "train_split"):
            return
        train, test = self._rows()
        if not train:
            raise UserError(f"data.file={self.file}: the table has no rows. Use a table with one house per row.")
        if self.target not in train[0]:
            raise UserError(
                f"data.target={self.target}: the table has no such column. Its columns: {', '.join(train[0])}."
            )
        no_feature = {self.target, self.id_column, *self.drop}
        features = features_of([{k: row[k] for k in row if k not in no_feature} for row in train + test])
        if features.shape[1] != self.num_features:
            raise UserError(
                f"data.num_features={self.num_features}: the table has {features.shape[1]}. Use that number."
            )
        prices = torch.tensor([[float(row[self.target])] for row in train])
        self.test_ids = [row[self.id_column] for row in test]
        self.test_split = Split((features[len(train) :],), torch.zeros(len(test), 1))
        held_out = torch.zeros(len(train), dtype=torch.bool)
        if self.fold is not None and self.num_folds is not None:
            size = len(train) // self.num_folds
            held_out[self.fold * size : (self.fold + 1) * size] = True
        labelled = features[: len(train)]
        self.train_split = Split((labelled[~held_out],), prices[~held_out])
        val = held_out if held_out.any() else ~held_out
        self.val_split = Split((labelled[val],), prices[val])

    def _loader(self, split: Split, *, shuffle: bool = False) -> DataLoader[tuple[Inputs, Tensor]]:
        batch_size = device_batch_size(self.batch_size, self.trainer)
        return DataLoader(Rows(split), batch_size=batch_size, shuffle=shuffle, collate_fn=identity_collate)

    def train_dataloader(self) -> DataLoader[tuple[Inputs, Tensor]]:
        """Return the training batches, in a new order each epoch."""
        return self._loader(self.train_split, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Inputs, Tensor]]:
        """Return the validation batches, always in the same order."""
        return self._loader(self.val_split)

    def test_dataloader(self) -> DataLoader[tuple[Inputs, Tensor]]:
        """Return the validation batches: Kaggle keeps the prices of its test houses."""
        return self._loader(self.val_split)

    def predict_dataloader(self) -> DataLoader[tuple[Inputs, Tensor]]:
        """Return the houses without a price, always in the same order."""
        return self._loader(self.test_split)
