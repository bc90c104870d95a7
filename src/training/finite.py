# SPDX-License-Identifier: Apache-2.0
"""Weights that are no numbers, found before they are used or written."""

import numpy as np

from src.errors import UserError


def check_finite(arrays, source, mend="take an earlier or another file"):
    """Refuse arrays with a NaN or an infinite value.

    Args:
        arrays (dict): name -> NumPy array, or MindSpore Tensor or Parameter.
        source: what they are of, as a path.
        mend (str): what to do about it.

    Raises:
        UserError: names the first such array, and how many of its values are not finite.
    """
    for name, array in arrays.items():
        array = array if isinstance(array, np.ndarray) else array.asnumpy()
        wrong = array.size - np.count_nonzero(np.isfinite(array))
        if wrong:
            raise UserError(
                f"{source}: tensor {name} has {wrong} of {array.size} values that are not finite (NaN or infinite), as "
                f"of a training that diverged; {mend}"
            )
