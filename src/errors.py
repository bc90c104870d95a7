# SPDX-License-Identifier: Apache-2.0
"""The one exception that means "the user can mend this", and how entry scripts report it."""

import difflib
import functools
import os
import sys

from src.mindspore_version import mindspore_mistake


class UserError(Exception):
    """A mistake of the caller: the message is one line that names the thing and the mend."""


def did_you_mean(word, candidates):
    """Return `"; did you mean 'x'?"` for the candidate nearest to `word`, or `""` if none is near."""
    near = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def entry_point(main):
    """Decorate `main()`: a `UserError` becomes `error: ...` on stderr and exit code 2, Ctrl-C exit code 130.

    A MindSpore that is not taken is such an error, before any of it is imported. A reader that leaves early, as in
    `infer.py ... | head`, ends the script quietly.
    """

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            if mistake := mindspore_mistake():
                raise UserError(mistake)
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            code = 2
        except KeyboardInterrupt as error:
            print(str(error) or "interrupted", file=sys.stderr)
            code = 130
        except BrokenPipeError:
            os._exit(0)
        sys.stdout.flush()
        sys.stderr.flush()
        # MindSpore's data workers can outlive an exception; a normal interpreter exit would wait for them.
        os._exit(code)

    return run
