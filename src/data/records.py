# SPDX-License-Identifier: Apache-2.0
"""A split packed into MindRecord files: shards beside a manifest that says what they hold (`packing` writes them)."""

import dataclasses
import json
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.data.image_files import check_utf8
from src.data.split import ImageSplit
from src.errors import UserError

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One MindRecord file: records of "file" (CLASS/IMAGE), "label" and "image" (the bytes of that file).

    Attributes:
        file: its name; MindSpore's index lies beside it, in a file of that name and ".db".
        images: how many records it has.
        size: of the file, in bytes.
        listing: SHA-256 of the names and sizes of the images it was packed from.
        crc32: of all records in their order.
    """

    file: str
    images: int
    size: int
    listing: str
    crc32: int


@dataclasses.dataclass(frozen=True)
class PackedSplit(ImageSplit):
    """What a packed split holds; used as `image_folder.Split` is.

    Attributes:
        folder: its path.
        classes: names of the classes; the position is the label.
        images: how many images the shards have together once all are packed, in the order of a folder's images.
        shard_size: images in each shard but the last.
        shards: those that are packed.
    """

    folder: Path
    classes: list[str]
    images: int
    shard_size: int
    shards: list[Shard]

    def read(self, order, threads):
        return self._records(["image", "label"], order, num_parallel_workers=threads)

    def path(self, position):
        records = self._records(["file"], np.array([position]))
        ((file,),) = records.create_tuple_iterator(num_epochs=1, output_numpy=True)
        return self.folder / str(file)

    def counts(self):
        labels = self._records(["label"], np.arange(self.images)).create_tuple_iterator(1, output_numpy=True)
        return np.bincount([int(label) for (label,) in labels], minlength=len(self.classes))

    def _records(self, columns, order, **options):
        paths = [str(self.folder / shard.file) for shard in self.shards]
        return ds.MindDataset(paths, columns, sampler=ds.SubsetSampler(order.tolist()), **options)

    def lacks(self, shard):
        """Whether the files of `shard` are missing or not of their size."""
        path = self.folder / shard.file
        return not (path.is_file() and Path(f"{path}.db").is_file() and path.stat().st_size == shard.size)


def read_manifest(folder):
    """Return the `PackedSplit` of a folder as its manifest says, whether the shards are there or not.

    Raises:
        UserError: the manifest cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text())
        shards = [Shard(**shard) for shard in content.pop("shards")]
        return PackedSplit(folder=path.parent, shards=shards, **content)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); pack the split again") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a whole manifest of packed images; pack the split again") from error


def open_packed(folder):
    """Return the `PackedSplit` of a folder, all of whose shards are there.

    Raises:
        UserError: packing has not ended, or a shard is missing or incomplete.
    """
    check_utf8(folder)
    packed = read_manifest(folder)
    done = sum(shard.images for shard in packed.shards)
    if done != packed.images:
        raise UserError(
            f"{folder} has {done} of {packed.images} images packed; run scripts/create_mindrecord.py again to go on"
        )
    for shard in packed.shards:
        if packed.lacks(shard):
            raise UserError(
                f"shard {packed.folder / shard.file} or its .db file is missing or incomplete; copy it again, or run "
                "scripts/create_mindrecord.py to pack it anew"
            )
    return packed
