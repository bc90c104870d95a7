# SPDX-License-Identifier: Apache-2.0
"""The command line the entry scripts share: `--config FILE` and any key of the schema."""

import argparse

from src.config import describe_schema, load_config


def config_parser(description):
    """Return a parser for `--config`; the script adds its own arguments and calls `parse_with_config`."""
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s --config FILE [options] [--section.key VALUE ...]",
        epilog="--data_dir and --device_target are short for --data.data_dir and --device.target.\n"
        f"Keys of the configuration, each also an option:\n\n{describe_schema()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviation could swallow a key of the schema.
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the experiment, see config/")
    return parser


def parse_with_config(parser):
    """Return `(arguments, Config)` of the command line.

    Raises:
        UserError: an unknown key, a wrong type, an impossible value, or a configuration that cannot be read.
    """
    arguments, overrides = parser.parse_known_args()
    return arguments, load_config(arguments.config, overrides)
