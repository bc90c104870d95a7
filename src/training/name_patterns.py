# SPDX-License-Identifier: Apache-2.0
"""Parameters chosen by shell patterns of their names."""

from fnmatch import fnmatchcase

from src.errors import UserError, did_you_mean


def matching(names, patterns, setting):
    """Return the set of those `names` that one of the `patterns` matches.

    Args:
        names (list): of parameters.
        patterns (list): as `layer1.*`.
        setting (str): where the patterns stand, for messages.

    Raises:
        UserError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"{setting}: no trainable parameter is called {pattern}{did_you_mean(pattern, _patterns(names))}"
            )
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _patterns(names):
    """All names, and each Cell's as the pattern of what it holds."""
    cells = {name[:end] for name in names for end in range(len(name)) if name[end] == "."}
    return [*names, *(f"{cell}.*" for cell in sorted(cells))]
