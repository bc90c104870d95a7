# SPDX-License-Identifier: Apache-2.0
"""A split packed into MindRecord files: shards beside a manifest that says what they hold (`packing` writes them)."""

import dataclasses
import json
import os
from pathlib import Path

import mindspore.dataset as ds

from src.data.image_files import check_utf8
from src.data.split import ImageSplit
from src.errors import UserError

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One MindRecord file.

    Attributes:
        file: its name; MindSpore's index lies beside it, in a file of that name and ".db".
        images: how many records it has.
        size: of the file, in bytes.
        listing: SHA-256 of the names and sizes of the files it was packed from.
        crc32: of all records in their order.
    """

    file: str
    images: int
    size: int
    listing: str
    crc32: int


@dataclasses.dataclass(frozen=True)
class Records:
    """What the shards of a packed split hold, whatever it is; `packed_splits` reads it as the split that it was.

    Attributes:
        folder: its path.
        images: how many records the shards have together once all are packed, in the order of the split's images.
        shard_size: records in each shard but the last.
        shards: those that are packed.
        columns: of a record, as MindRecord names their kinds: "string", "int32" or "bytes", which are those of a file.
        about: what else is said of the split, as JSON values.
    """

    folder: Path
    images: int
    shard_size: int
    shards: list[Shard]
    columns: dict[str, str]
    about: dict

    def rows(self, columns, order, threads=None):
        """Return a MindSpore data set of some columns of the records at the positions `order`."""
        paths = [str(self.folder / shard.file) for shard in self.shards]
        sampler = ds.SubsetSampler([int(position) for position in order])
        return ds.MindDataset(paths, columns, sampler=sampler, num_parallel_workers=threads)

    def path(self, column, position):
        """Return what a file of a record is called in messages, its name below `folder`."""
        ((file,),) = self.rows([column], [position]).create_tuple_iterator(num_epochs=1, output_numpy=True)
        return self.folder / str(file)

    def lacks(self, shard):
        """Whether the files of `shard` are missing or not of their size."""
        path = self.folder / shard.file
        return not (path.is_file() and Path(f"{path}.db").is_file() and path.stat().st_size == shard.size)

    def to_json(self):
        """Return what the manifest says."""
        shards = [dataclasses.asdict(shard) for shard in self.shards]
        own = {"images": self.images, "shard_size": self.shard_size, "columns": self.columns, "shards": shards}
        return {**self.about, **own}


def is_packed(folder):
    """Whether a folder holds a packed split, be it whole or not."""
    return Path(folder, MANIFEST).is_file()


def read_manifest(folder):
    """Return the `Records` of a folder as its manifest says, whether the shards are there or not.

    Raises:
        UserError: the manifest cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text())
        shards = [Shard(**shard) for shard in content.pop("shards")]
        # The first manifests were all of images with labels, and did not say so.
        columns = content.pop("columns", ImageSplit.columns)
        return Records(path.parent, content.pop("images"), content.pop("shard_size"), shards, dict(columns), content)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); pack the split again") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _not_whole(path) from error


def open_records(folder, columns=None, about=()):
    """Return the `Records` of a folder, all of whose shards are there.

    Args:
        columns: those that they have to have; None: any.
        about: what the manifest has to say of them.

    Raises:
        UserError: packing has not ended, a shard is missing or incomplete, or they are of another kind.
    """
    check_utf8(folder)
    records = read_manifest(folder)
    if columns is not None and list(records.columns) != list(columns):
        raise UserError(
            f"{folder} was packed with {', '.join(records.columns)} in each record, but this takes "
            f"{', '.join(columns)}; pack it with the same --config"
        )
    if any(name not in records.about for name in about):
        raise _not_whole(records.folder / MANIFEST)
    done = sum(shard.images for shard in records.shards)
    if done != records.images:
        raise UserError(
            f"{folder} has {done} of {records.images} images packed; run scripts/create_mindrecord.py again to go on"
        )
    for shard in records.shards:
        if records.lacks(shard):
            raise UserError(
                f"shard {records.folder / shard.file} or its .db file is missing or incomplete; copy it again, or run "
                "scripts/create_mindrecord.py to pack it anew"
            )
    return records


def text_of(file):
    """Return a file name, bytes or str, as MindRecord takes it: UTF-8."""
    return os.fsencode(file).decode(errors="replace")


def _not_whole(path):
    return UserError(f"{path} is not a whole manifest of packed images; pack the split again")
