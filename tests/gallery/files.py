"""Small files in the formats of what the gallery downloads."""

from __future__ import annotations

import csv
import random
from pathlib import Path

SAMPLE = ("data.name=mnist_sample", "data.data_dir=${paths.root_dir}/data/mnist_sample", "data.local_dirs=[]")


def write_files(data: str, folder: Path) -> list[str]:
    """Write the file of a data config; return overrides that it needs."""
    draw = random.Random(0)
    if data == "airfoil":
        rows = ["\t".join(f"{draw.random():.4f}" for _ in range(6)) for _ in range(40)]
        (folder / "airfoil_self_noise.dat").write_text("\n".join(rows) + "\n")
        return ["data.source.num_examples=40"]
    if data == "sentences":
        words = ["go", "run", "we", "i", "home", "lost", "calm", "am"]
        pairs = [" ".join(draw.sample(words, 3)) for _ in range(40)]
        (folder / "fra.txt").write_text("".join(f"{pair}.\t{pair[::-1]} !\tCC-BY\n" for pair in pairs))
        return ["data.batch_size=8"]
    with (folder / "houses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Id", "Area", "Zone", "SalePrice"])
        for number in range(40):
            area = draw.randint(50, 200)
            writer.writerow([number, "NA" if number == 3 else area, draw.choice(["A", "B", "NA"]), 1000 * area])
    # one column of numbers, and one each for the texts A, B and NA
    return ["data.file=houses.csv", "data.num_features=4", "data.batch_size=8"]
