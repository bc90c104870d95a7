# SPDX-License-Identifier: Apache-2.0
"""The key of an encrypted MindIR: `--key KEY`, or `--key @FILE`, which a list of processes does not show."""

from pathlib import Path

from src.errors import UserError

# Bytes of an AES key.
_LENGTHS = (16, 24, 32)


def read_key(text):
    """Return the key that `--key` gives, as bytes; None where there is none.

    Args:
        text (str | None): the key itself, or @ and the name of a file that holds it; a newline at its end counts for
            nothing.

    Raises:
        UserError: the file cannot be read, or it is no key by its length.
    """
    if text is None:
        return None
    key = text.encode("utf-8", "surrogateescape")
    if text.startswith("@"):
        try:
            key = Path(text[1:]).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the file of --key: {error.strerror}") from error
        key = key if len(key) in _LENGTHS else key.removesuffix(b"\n")
    if len(key) not in _LENGTHS:
        raise UserError(f"--key has {len(key)} bytes but takes 16, 24 or 32 of them, or @FILE with as many")
    return key
