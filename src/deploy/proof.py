# SPDX-License-Identifier: Apache-2.0
"""Whether an exported file computes what the network it was made of computes."""

import numpy as np

# How many images a file that takes any number is tried on.
BATCHES = (1, 2, 3, 5)


class WrongExport(Exception):
    """An exported file did not compute what the network computes, and was deleted."""


def example_images(spec, options):
    """Return what a file is tried on: images as it takes them, and as the network does, float32 (B, C, H, W).

    Args:
        spec (dict): the preprocessing, see `src.data.preprocessing`.
        options (Options): of the file.
    """
    rng, size, channels = np.random.default_rng(0), tuple(spec["image_size"]), spec["in_channels"]
    count = options.batch_size or max(BATCHES)
    if not options.preprocess:
        images = rng.standard_normal((count, channels, *size), np.float32)
        return images.astype(options.dtype), images
    pixels = rng.integers(0, 256, (count, *size, channels), np.uint8)
    images = (pixels / 255 - spec["mean"]) / spec["std"]
    return pixels, np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def difference(name, runtime, images, expected, options, deployment):
    """Return by how much what a file makes of `images` differs from `expected`, see `Deployment.difference`.

    Args:
        name (str): of the file.
        runtime: the file, see `src.deploy.running.runtime`.
        images (numpy.ndarray): as many as the file takes; those of `example_images` where it takes any number.
        expected (list): what the network gives for them.
        options (Options): of the file.
        deployment (Deployment): of the network.

    Raises:
        WrongExport: by more than `options.tolerance`, or the file's results are not finite.
    """
    counts = [options.batch_size] if options.batch_size else BATCHES
    form = options.form(deployment.outputs)
    parts = [(runtime.results(images[:count]), [part[:count] for part in expected]) for count in counts]
    largest = np.max([deployment.difference(form, *part) for part in parts])
    # Not `>`, which lets NaN pass.
    if not largest <= (np.inf if options.tolerance is None else options.tolerance):
        raise WrongExport(
            f"the exported {name} differs from the network by {largest:.1e} {deployment.unit} (allowed: "
            f"{options.tolerance:.0e}) and was deleted; --device_target CPU rounds least"
        )
    return float(largest)
