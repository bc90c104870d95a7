# SPDX-License-Identifier: Apache-2.0
"""Which form a network has that is trained or evaluated: by fused kernels, or portable."""

import sys
from contextlib import ExitStack, contextmanager

from src.errors import UserError
from src.ops.kernels import NoKernels, fused_form


@contextmanager
def kernels_of(device):
    """Within it, graphs are compiled as `device.kernels` of a `DeviceConfig` says; a line tells why "auto" is portable.

    Raises:
        UserError: "fused", and that cannot be had here.
    """
    with ExitStack() as form:
        if device.kernels != "portable":
            try:
                form.enter_context(fused_form())
            except NoKernels as reason:
                if device.kernels == "fused":
                    raise UserError(f"no fused kernels: {reason}; or take device.kernels: portable") from reason
                if device.target == "CPU":
                    print(f"no fused kernels, so networks take their portable form: {reason}", file=sys.stderr)
        yield
