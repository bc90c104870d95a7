# SPDX-License-Identifier: Apache-2.0
"""The command line the scripts share: `--config FILE` and any key of the schema; how far long work is."""

import argparse
import sys
import time

from tqdm import tqdm

from src.config import ALIASES, describe_schema, load_config
from src.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line too."""

    def error(self, message):
        raise UserError(message)


def config_parser(description, config=None):
    """Return a parser for `--config`; the script adds its own arguments and calls `parse_with_config`.

    Without `config`, the default, the command line has to name a file.
    """
    short = ", ".join(f"--{name} for --{key}" for name, key in ALIASES.items())
    parser = Parser(
        description=description,
        usage="%(prog)s --config FILE [options] [--section.key VALUE ...]",
        epilog=f"Short: {short}.\nKeys of the configuration, each also an option:\n\n{describe_schema()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviation could swallow a key of the schema.
        allow_abbrev=False,
    )
    default = f"; default {config}" if config else ""
    text = f"YAML file of the experiment, see config/{default}"
    parser.add_argument("--config", required=config is None, default=config, metavar="FILE", help=text)
    return parser


def parse_with_config(parser):
    """Return `(arguments, Config)` of the command line.

    Raises:
        UserError: an unknown key, a wrong type, an impossible value, or a configuration that cannot be read.
    """
    arguments, overrides = parser.parse_known_args()
    return arguments, load_config(arguments.config, overrides)


def follow(work, what, done, total):
    """Run `work`, which yields how many images it got on, and show it: a bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with tqdm(desc=what, initial=done, total=total, unit="image", dynamic_ncols=True) as bar:
            for images in work:
                bar.update(images)
        return
    told = time.monotonic()
    for images in work:
        done += images
        if done == total or time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{what}  {done}/{total} images", file=sys.stderr, flush=True)
