# SPDX-License-Identifier: Apache-2.0
"""From a network to a MindIR or AIR file."""

import shutil
import tempfile

import mindspore as ms

from src.deploy.serving import HalfPrecision

ENCRYPTION = "AES-GCM"


def write_mindspore(kind, serving, images, options, path):
    """Write a network as MindSpore's exporter does, to a path of any characters.

    Args:
        kind (str): "mindir" or "air".
        serving (Serving): the network; with `options.dtype` "float16" its parameters become that.
        images (numpy array): what the file takes.
        options (Options): of the file.
        path: of the file.
    """
    if options.dtype == "float16":
        serving = HalfPrecision(serving)
    # MindSpore exports to paths of a few ASCII characters only, and closes their folder to others.
    with tempfile.TemporaryDirectory() as scratch:
        exported = f"{scratch}/network.{kind}"
        encryption = {"enc_key": options.key, "enc_mode": ENCRYPTION} if options.key else {}
        ms.export(serving, ms.Tensor(images), file_name=exported, file_format=kind.upper(), **encryption)
        shutil.copyfile(exported, path)
