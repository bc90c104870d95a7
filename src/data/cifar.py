# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) as their binary files: 32x32 colour images, decoded already."""

import dataclasses
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import transforms

from src.data.image_files import check_utf8
from src.data.split import ImageSplit
from src.errors import UserError

PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Form:
    """How one of the data sets is kept: where to get it, its files by split with their records, bytes before pixels."""

    archive: str
    files: dict[str, dict[str, int]]
    names: str
    labels: int


FORMS = {
    "cifar10": Form(
        "cifar-10-binary.tar.gz",
        {
            "train": {f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
            "test": {"test_batch.bin": 10_000},
        },
        "batches.meta.txt",
        labels=1,
    ),
    "cifar100": Form(
        "cifar-100-binary.tar.gz",
        {"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
        "fine_label_names.txt",
        labels=2,
    ),
}


@dataclasses.dataclass(frozen=True)
class CifarSplit(ImageSplit):
    """One split of a CIFAR; used as `image_folder.Split` is.

    Attributes:
        name: "cifar10" or "cifar100".
        folder: with the binary files.
        split: "train" or "test".
        classes: their names (of CIFAR-100 the 100 fine ones); the position is the label.
        images: how many there are.
    """

    name: str
    folder: Path
    split: str
    classes: list[str]
    images: int

    def read(self, order, threads):
        source = {"cifar10": ds.Cifar10Dataset, "cifar100": ds.Cifar100Dataset}[self.name]
        label = {"cifar10": "label", "cifar100": "fine_label"}[self.name]
        sampler = ds.SubsetSampler(order.tolist())
        rows = source(str(self.folder), self.split, num_parallel_workers=threads, sampler=sampler)
        rows = rows.project(["image", label]).rename(label, "label")
        return rows.map(transforms.TypeCast(ms.int32), "label", num_parallel_workers=1)

    def list_labels(self):
        form = FORMS[self.name]
        records = [np.fromfile(self.folder / file, np.uint8) for file in form.files[self.split]]
        return np.concatenate(records).reshape(-1, form.labels + PIXELS)[:, form.labels - 1].astype(int)


def open_cifar(name, folder, split):
    """Return the `CifarSplit` of "cifar10" or "cifar100" whose files lie in `folder`.

    Raises:
        UserError: `split` is neither "train" nor "test", or a file is missing or not of its size.
    """
    form, folder = FORMS[name], check_utf8(folder)
    if split not in form.files:
        raise UserError(f"{name} has the splits train and test but not '{split}'; set data.train_split, data.val_split")
    mend = f"unpack https://www.cs.toronto.edu/~kriz/{form.archive} and give the folder with its files as --data_dir"
    try:
        classes = (folder / form.names).read_text().split()
        for file, records in form.files[split].items():
            size, expected = (folder / file).stat().st_size, records * (form.labels + PIXELS)
            if size != expected:
                raise UserError(f"{folder / file} has {size} bytes but takes {expected}: it is damaged; {mend}")
    except OSError as error:
        raise UserError(f"cannot read {error.filename} of {name} ({error.strerror}); {mend}") from error
    return CifarSplit(name, folder, split, classes, sum(form.files[split].values()))
