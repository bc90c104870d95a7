# SPDX-License-Identifier: Apache-2.0
"""A split packed into MindRecord files: shards beside a manifest that says what they hold (`packing` writes them)."""

import dataclasses
import json
from pathlib import Path

import mindspore.dataset as ds

from src.data.transforms import decode
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
class PackedSplit:
    """What a packed split holds; used as `image_folder.Split` is.

    Attributes:
        folder: its path.
        classes: names of the classes; the position is the label.
        images: how many images the shards have together once all are packed, in the order of a folder's images.
        shard_size: images in each shard but the last.
        shards: those that are packed.
        decoded: False: the images come as the bytes of files.
    """

    folder: Path
    classes: list[str]
    images: int
    shard_size: int
    shards: list[Shard]
    decoded = False

    def read(self, order, threads):
        """Return a data set of columns "image" (the bytes of a file) and "label" (int32, ()).

        Args:
            order: positions of the images to give, 0..images-1.
            threads: how many read.
        """
        paths = [str(self.folder / shard.file) for shard in self.shards]
        sampler = ds.SubsetSampler(order.tolist())
        return ds.MindDataset(paths, ["image", "label"], num_parallel_workers=threads, sampler=sampler)

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


def name_damaged_record(dataset, taken):
    """Raise `UserError` naming the record that stopped `dataset`, if that reads a packed split and one is damaged.

    MindSpore does not say which record failed, so those that it was about to give are decoded once more.

    Args:
        dataset: batches of `create_dataset`.
        taken: how many images it has given.
    """
    source = dataset
    while source.children:
        source = source.children[0]
    if not isinstance(source, ds.MindDataset):
        return
    folder = Path(source.dataset_files[0]).parent
    try:
        # Further than MindSpore reads ahead.
        end = taken + 16 * dataset.get_batch_size() + 1024
        sampler = ds.SubsetSampler(source.sampler.indices[taken:end])
        records = ds.MindDataset(source.dataset_files, ["image", "file"], sampler=sampler)
        for image, file in records.create_tuple_iterator(num_epochs=1, output_numpy=True):
            decode(f"{file} in the shards of {folder}", image.tobytes())
    except RuntimeError as error:
        raise UserError(f"a shard of {folder} cannot be read; scripts/create_mindrecord.py --check names it") from error
