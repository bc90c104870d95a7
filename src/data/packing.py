# SPDX-License-Identifier: Apache-2.0
"""Packing the files of a split into MindRecord shards, and checking them (`records` reads them)."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mindspore.dataset as ds
from mindspore.mindrecord import FileWriter

from src.data.image_files import check_utf8
from src.data.records import MANIFEST, Records, Shard, is_packed, read_manifest
from src.errors import UserError

_ASIDE = ".packing-"
# Records held in memory at once.
_CHUNK = 64


class Packing:
    """Packs one split shard by shard; what a stopped run has packed is kept.

    A shard is written aside, read back, compared with the files and renamed; then the manifest counts it.

    Args:
        listed: what is packed, a split of files as `image_folder.Split` or `pixel_folder.PairSplit`. It has `folder`;
            `images`, how many records it makes; `columns` and `about` of `Records`; `files_of(position)`, which a
            record is made of; and `record(position)`, which reads and checks them.
        target: folder for the shards and the manifest.
        shard_size (int): images in a shard; None as in `target`, or 10,000.

    Attributes:
        images: how many there are.
        packed: how many of them are in complete shards.

    Raises:
        UserError: `target` was packed from other images or holds something else.
    """

    def __init__(self, listed, target, shard_size=None):
        self._listed, self._target, self.images = listed, check_utf8(target), listed.images
        earlier = read_manifest(target) if is_packed(self._target) else None
        if earlier and shard_size not in (None, earlier.shard_size):
            raise UserError(
                f"{target} has {earlier.shard_size} images a shard; leave --shard_size out or give another --output_dir"
            )
        if not earlier and self._target.exists() and any(not n.startswith(_ASIDE) for n in os.listdir(self._target)):
            raise UserError(f"{target} holds something else; give another --output_dir")
        shard_size = earlier.shard_size if earlier else shard_size or 10_000
        self._parts = [range(self.images)[start : start + shard_size] for start in range(0, self.images, shard_size)]
        self._records = Records(self._target, self.images, shard_size, [], listed.columns, listed.about)
        self._shards = {}
        if earlier:
            self._keep(earlier)

    @property
    def packed(self):
        return sum(shard.images for shard in self._shards.values())

    def run(self):
        """Pack what is missing; yields how many images were packed since the last time.

        Raises:
            UserError: an image cannot be read or decoded, or the shards cannot be written.
        """
        missing = [number for number in range(len(self._parts)) if _name(number) not in self._shards]
        with _writing(self._target):
            self._target.mkdir(parents=True, exist_ok=True)
            for leftover in self._target.glob(f"{_ASIDE}*"):
                shutil.rmtree(leftover)
            self._save_manifest()
            self._check_room(missing)
        for number in missing:
            yield from self._pack_shard(_name(number), self._parts[number])

    def _keep(self, earlier):
        """Take over the complete shards of an earlier run, whose images must be those of now."""
        parts = {_name(number): part for number, part in enumerate(self._parts)}
        for shard in earlier.shards:
            is_same = shard.file in parts and shard.listing == self._listing(parts[shard.file])
            if not is_same or (earlier.columns, earlier.about) != (self._records.columns, self._records.about):
                raise UserError(
                    f"{self._target} was packed from other images than {self._listed.folder} has now (see "
                    f"{shard.file}); give another --output_dir or delete {self._target}"
                )
            if not earlier.lacks(shard):
                self._shards[shard.file] = shard

    def _pack_shard(self, name, part):
        with _writing(self._target), tempfile.TemporaryDirectory(prefix=_ASIDE, dir=self._target) as aside:
            written = Path(aside, name)
            crc32 = yield from self._write(written, part)
            shard = Shard(name, len(part), written.stat().st_size, self._listing(part), crc32)
            if _checksum(written, shard.images, self._records.columns) != crc32:
                raise UserError(f"{written} does not read back as it was written; check the disk of {self._target}")
            # The index first: where the data file is, the shard is whole.
            for path in (Path(f"{written}.db"), written):
                # MindSpore makes its files readable for their owner alone.
                shutil.copymode(self._target / MANIFEST, path)
                _sync(path)
                os.replace(path, self._target / path.name)
            self._shards[name] = shard
            self._save_manifest()

    def _write(self, path, part):
        writer = FileWriter(str(path))
        columns = self._records.columns
        writer.add_schema({name: {"type": kind} for name, kind in columns.items()})
        if numbers := [name for name, kind in columns.items() if kind == "int32"]:
            writer.add_index(numbers)
        # A page holds at least one record; 32 MB is MindSpore's own size.
        writer.set_page_size(1 << max(25, max(self._sizes(part)).bit_length()))
        crc32 = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(part), _CHUNK):
                records = list(pool.map(self._listed.record, part[start : start + _CHUNK]))
                for record in records:
                    crc32 = _add_record(crc32, record, columns)
                writer.write_raw_data(records)
                yield len(records)
        writer.commit()
        return crc32

    def _check_room(self, missing):
        needed = 1.01 * sum(sum(self._sizes(self._parts[number])) for number in missing)
        free = shutil.disk_usage(self._target).free
        if needed > free:
            raise UserError(
                f"{self._target} takes {needed / 1e9:.1f} GB more but its disk has {free / 1e9:.1f} GB free; make room "
                "or give another --output_dir"
            )

    def _sizes(self, part):
        return [sum(os.stat(path).st_size for _, path in self._listed.files_of(position)) for position in part]

    def _listing(self, part):
        """Return the SHA-256 that tells whether files were added, removed or replaced."""
        digest = hashlib.sha256()
        for position in part:
            for name, path in self._listed.files_of(position):
                digest.update(name + b"\0%d\n" % os.stat(path).st_size)
        return digest.hexdigest()

    def _save_manifest(self):
        shards = [self._shards[name] for name in sorted(self._shards)]
        content = dataclasses.replace(self._records, shards=shards).to_json()
        aside = self._target / f"{_ASIDE}{MANIFEST}"
        aside.write_text(json.dumps(content, indent=1) + "\n")
        _sync(aside)
        os.replace(aside, self._target / MANIFEST)


def check(records):
    """Read every one of some `Records` and compare it with the files it was packed from, by checksum.

    Yields how many images were read since the last time.

    Raises:
        UserError: shards are damaged; names all of them.
    """
    damaged = []
    for shard in records.shards:
        try:
            is_whole = _checksum(records.folder / shard.file, shard.images, records.columns) == shard.crc32
        except RuntimeError:
            is_whole = False
        if not is_whole:
            damaged.append(shard.file)
        yield shard.images
    if damaged:
        raise UserError(
            f"damaged shards in {records.folder}: {', '.join(damaged)}; delete them and pack again, only they are made"
        )


def _checksum(path, images, columns):
    """Return the CRC-32 of the records of a shard, in their order; None where they are not `images` many."""
    crc32 = count = 0
    records = ds.MindDataset(str(path), list(columns), shuffle=False)
    for record in records.create_dict_iterator(num_epochs=1, output_numpy=True):
        crc32 = _add_record(crc32, record, columns)
        count += 1
    return crc32 if count == images else None


def _add_record(crc32, record, columns):
    for name, kind in columns.items():
        value = record[name] if kind == "bytes" else f"{record[name]}\0".encode()
        crc32 = zlib.crc32(value, crc32)
    return crc32


@contextmanager
def _writing(folder):
    """Turn what the system, and MindSpore's writer, say of a failed write into a `UserError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the disk is full or failing"
        raise UserError(
            f"cannot write packed images to {folder} ({reason}); mend that and run again, or give another --output_dir"
        ) from error


def _sync(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _name(number):
    return f"shard-{number:05d}.mindrecord"
