# SPDX-License-Identifier: Apache-2.0
"""float16 in place of float32 in an ONNX graph: half the size, and twice the speed where there is hardware for it.

LayerNormalization from opset 17 on computes in float32 inside, and a softmax subtracts its largest logit, so both may
take and give float16; the bias of keys that a query does not see fits.
"""

import numpy as np
from onnx import TensorProto, numpy_helper


def to_float16(model):
    """Make weights, arithmetic, input and output of a tidy model float16, in place, and return it."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT):
                attribute.i = TensorProto.FLOAT16
    return model
