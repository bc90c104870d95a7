# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: which parts compute in 16 bits, and the scale that keeps small gradients from vanishing there."""

from mindspore import Tensor, amp, nn
from mindspore import dtype as mstype

from src.errors import UserError

# What stays in float32. Of bfloat16 CANN has no maximum over windows, and no device a batch norm.
_FLOAT32 = {"float16": amp.get_black_list(), "bfloat16": [*amp.get_black_list(), nn.MaxPool2d]}
DTYPES = {"float16": mstype.float16, "bfloat16": mstype.bfloat16}
# A dynamic scale begins here, halves at each overflow and doubles after so many steps without one.
FIRST_SCALE, STEPS_TO_DOUBLE = 2.0**16, 2000


def mixed_precision(network, level, dtype="float16"):
    """Return `network` to compute in `dtype` as a level of MindSpore says; the logits are float32.

    "O0" is float32; "O1" has convolutions and linear layers in `dtype`; "O2" and "O3" all but the norms, whose results
    "O2" casts at once and "O3" where they are used; "auto" chooses by operator: products in `dtype`, norms, softmax and
    exponentials in float32. Softmax, alpha and beta are float32 in all of them, since `src.ops` casts for them.

    The parameters stay the same float32 objects under the same `Parameter.name`, so checkpoints do not depend on the
    level; the names by position in the tree (`parameters_and_names()`) do change.

    In bfloat16 max pools stay in float32, as the norms do, whose input is cast in O1 too.
    """
    if level == "O2":
        return amp.custom_mixed_precision(network, black_list=_FLOAT32[dtype], dtype=DTYPES[dtype])
    if level == "O1":
        # MindSpore's own O1 rewrites the source of the Cells, and cannot read that of most transformers here.
        mixed = network
        _compute_in(DTYPES[dtype], network, (nn.Conv2d, nn.Dense))
    else:
        mixed = amp.auto_mixed_precision(network, level, DTYPES[dtype])
    if level == "O3" or (level, dtype) == ("O1", "bfloat16"):
        # MindSpore's own O3 has them in `dtype`, for which GPUs have no kernel.
        _compute_in(mstype.float32, network, tuple(_FLOAT32[dtype]))
    return _Float32Output(mixed) if level in ("O1", "auto") else mixed


def _compute_in(dtype, network, kinds):
    for _, cell in network.cells_and_names():
        if isinstance(cell, kinds):
            cell.to_float(dtype)


class _Float32Output(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, *inputs):
        out = self.network(*inputs)
        if not isinstance(out, tuple):
            return out.astype(mstype.float32)
        parts = ()
        for part in out:
            parts += (part if part.dtype == mstype.int32 else part.astype(mstype.float32),)
        return parts


def create_scaler(device):
    """Return MindSpore's scaler of the loss for a `DeviceConfig`; None where nothing needs one.

    Raises:
        UserError: the device cannot compute in the type.
    """
    if device.amp_level != "O0" and device.amp_dtype == "bfloat16" and device.target == "CPU":
        raise UserError("device.amp_dtype bfloat16: MindSpore convolves in it on Ascend and GPU only; take float16")
    # bfloat16 has the range of float32.
    if device.amp_level == "O0" or device.amp_dtype == "bfloat16":
        return None
    if device.loss_scale:
        return amp.StaticLossScaler(device.loss_scale)
    return amp.DynamicLossScaler(FIRST_SCALE, 2, STEPS_TO_DOUBLE)


def scaler_state(scaler):
    """Return what a resumed run needs of a scaler, as numbers: the scale and the steps since it last changed."""
    if not isinstance(scaler, amp.DynamicLossScaler):
        return None
    return [scaler.scale_value.asnumpy().item(), scaler.counter.asnumpy().item()]


def restore_scaler(scaler, state):
    """Let a dynamic scaler go on from what `scaler_state` returned; a fixed one is as the configuration says."""
    if isinstance(scaler, amp.DynamicLossScaler) and state:
        scaler.scale_value.set_data(Tensor(state[0], mstype.float32))
        scaler.counter.set_data(Tensor(state[1], mstype.int32))
