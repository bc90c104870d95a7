# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: each level computes what float32 computes, and a step survives gradients that overflow."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, amp, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src.config import DeviceConfig, OptimizerConfig
from src.device import World
from src.errors import UserError
from src.models import create_model
from src.models.san import patchwise_acmix
from src.ops import ACmix
from src.ops.spatial_reduction_attention import SpatialReductionAttention
from src.ops.window_attention import WindowACmix
from src.training.optimizer import create_optimizer
from src.training.precision import create_scaler, mixed_precision, restore_scaler, scaler_state
from src.training.step import TrainStep

FORMS = {
    "sliding window": (lambda: ACmix(16, 16), (2, 16, 15, 13)),
    "window": (lambda: WindowACmix(16, 2, 4, 2), (2, 9, 8, 16)),
    "patchwise": (lambda: patchwise_acmix(64, 7), (4, 64, 9, 8)),
    "spatial reduction": (lambda: OnGrid(SpatialReductionAttention(16, 2, 2), (8, 8)), (2, 64, 16)),
}
LEVELS = ("O1", "O2", "O3", "auto")


class OnGrid(nn.Cell):
    """An attention whose tokens lie on this grid."""

    def __init__(self, attention, grid):
        super().__init__()
        self.attention, self.grid = attention, grid

    def construct(self, tokens):
        return self.attention((tokens, self.grid))


class Total(nn.Cell):
    """A number whose gradients reach everything."""

    def __init__(self, network, weights):
        super().__init__(auto_prefix=False)
        self.network, self.weights = network, weights

    def construct(self, x):
        return (self.network(x) * self.weights).sum()


def output_and_gradients(form, level):
    """Return the output of a layer in training mode, and the gradients of its input and parameters."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(0)
    make, shape = FORMS[form]
    x = Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    layer = make()
    parameters = layer.trainable_params()
    mixed = mixed_precision(layer, level).set_train()
    output = mixed(x)
    assert output.dtype == ms.float32
    weights = Tensor(np.random.default_rng(1).standard_normal(output.shape).astype(np.float32))
    of_input, of_parameters = ms.grad(Total(mixed, weights), 0, parameters)(x)
    names = ["x", *(p.name for p in parameters)]
    return output.asnumpy(), {n: g.asnumpy() for n, g in zip(names, (of_input, *of_parameters))}


@pytest.fixture(scope="module")
def exact():
    """Outputs and gradients in float32, computed once for each form."""
    return {form: output_and_gradients(form, "O0") for form in FORMS}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS)
def test_levels_agree_with_float32(form, level, exact):
    """Protects ACmix in each level: output and each gradient near those of float32, alpha's and beta's too."""
    output, gradients = exact[form]
    mixed_output, mixed_gradients = output_and_gradients(form, level)
    assert np.abs(mixed_output - output).max() < 2e-2 * np.abs(output).max()
    largest = max(np.linalg.norm(gradient) for gradient in gradients.values())
    for name, gradient in gradients.items():
        apart = np.linalg.norm(mixed_gradients[name] - gradient)
        assert apart < 2e-2 * max(np.linalg.norm(gradient), 0.05 * largest), name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["acmix_resnet26", "acmix_san10"])
def test_networks_compile_in_each_level(name, level):
    """Protects the blocks around the operator, where a shortcut and a norm can come in different types."""
    ms.set_context(mode=ms.GRAPH_MODE)
    depths, width = ((2, 1, 1, 1), 8) if "resnet" in name else ((1, 1, 1, 1, 1), 32)
    network = create_model(name, num_classes=3, image_size=32, stem="small", depths=depths, width=width)
    logits = mixed_precision(network, level).set_train()(Tensor(np.ones((2, 3, 32, 32), np.float32)))
    assert logits.dtype == ms.float32 and np.isfinite(logits.asnumpy()).all()


@pytest.mark.parametrize("size", [(7, 7), (15, 13)])
def test_borders_are_safe_in_float16(size):
    """Protects the bias of the windows: what is outside stays outside and finite, also with large queries and keys."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(0)
    layer = ACmix(16, 16, paths="attention").set_train(False)
    x = Tensor(4 * np.random.default_rng(1).standard_normal((2, 16, *size)).astype(np.float32))
    expected = layer(x).asnumpy()
    half = mixed_precision(layer, "O2")(x).asnumpy()
    assert np.abs(half - expected).max() < 2e-2 * np.abs(expected).max()


class Scale(nn.Cell):
    """weight * x as logits: the gradient of the weight overflows in float16 where x is large."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(np.ones((1, 2), np.float32)), name="weight")

    def construct(self, x):
        return self.weight * x


class Mean(nn.Cell):
    def construct(self, logits, label):
        return logits.mean()


def scaled_step(loss_scale):
    network = Scale()
    config = OptimizerConfig(momentum=0.0, weight_decay=0.0)
    optimizer = create_optimizer(network, config, np.ones(10, np.float32))
    scaler = create_scaler(DeviceConfig(amp_level="O2", loss_scale=loss_scale))
    return network, optimizer, scaler, TrainStep(network, Mean(), optimizer, World(), scaler)


@pytest.mark.parametrize(("loss_scale", "pixel"), [(1024.0, np.inf), (0.0, np.nan), (0.0, 6e19)])
def test_overflow_changes_nothing_and_is_survived(loss_scale, pixel):
    """Protects a run from one bad step: no parameter and no learning rate moves, the next step counts again.

    Bad is also a gradient that is finite but whose norm is not, as its square is too large for float32.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    network, optimizer, scaler, step = scaled_step(loss_scale)
    before = scaler.scale_value.asnumpy().item()
    label = Tensor(np.zeros(1, np.int32))
    step(Tensor(np.array([[pixel, 1]], np.float32)), label)
    np.testing.assert_array_equal(network.weight.asnumpy(), 1)
    assert int(optimizer.global_step.asnumpy()[0]) == 0
    assert scaler.scale_value.asnumpy().item() == (before if loss_scale else before / 2)
    loss, _ = step(Tensor(np.array([[2, 4]], np.float32)), label)
    assert loss.asnumpy() == pytest.approx(3)
    np.testing.assert_allclose(network.weight.asnumpy(), [[1 - 1, 1 - 2]], atol=1e-5)
    assert int(optimizer.global_step.asnumpy()[0]) == 1


def test_a_resumed_run_keeps_its_scale():
    """Protects resuming: a dynamic scale goes on where it was; a fixed one has no state."""
    scaler = create_scaler(DeviceConfig(amp_level="O2", loss_scale=0.0))
    restore_scaler(scaler, [32.0, 7])
    assert scaler_state(scaler) == [32.0, 7]
    fixed = create_scaler(DeviceConfig(amp_level="O2"))
    restore_scaler(fixed, [32.0, 7])
    assert scaler_state(fixed) is None and fixed.scale_value.asnumpy() == 1024


def test_scalers():
    """Protects the choice: none in float32 and bfloat16, fixed or dynamic in float16; bfloat16 is refused on CPU."""
    assert create_scaler(DeviceConfig()) is None
    assert create_scaler(DeviceConfig(amp_level="O2", amp_dtype="bfloat16", target="Ascend")) is None
    assert isinstance(create_scaler(DeviceConfig(amp_level="O1")), amp.StaticLossScaler)
    assert isinstance(create_scaler(DeviceConfig(amp_level="O1", loss_scale=0.0)), amp.DynamicLossScaler)
    with pytest.raises(UserError, match="bfloat16: MindSpore convolves in it on Ascend and GPU only"):
        create_scaler(DeviceConfig(amp_level="O2", amp_dtype="bfloat16"))


class NormPool(nn.Cell):
    """What a network has around its convolutions, which CPU does not compute in bfloat16."""

    def __init__(self):
        super().__init__()
        self.norm, self.pool = nn.BatchNorm2d(4), nn.MaxPool2d(2, 2)
        self.layer_norm = nn.LayerNorm((4,))

    def construct(self, x):
        return self.layer_norm(self.pool(self.norm(x)))


@pytest.mark.parametrize("level", LEVELS)
def test_norms_and_pools_in_bfloat16(level):
    """Protects bfloat16, for which no batch norm is defined and on Ascend no max pool: both compute in float32."""
    ms.set_context(mode=ms.GRAPH_MODE)
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32))
    expected = NormPool().set_train()(x).asnumpy()
    network = NormPool()
    mixed = mixed_precision(network, level, "bfloat16").set_train()
    output = mixed(x)
    assert output.dtype == ms.float32
    assert np.abs(output.asnumpy() - expected).max() < 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["resnet26", "acmix_resnet26", "acmix_san10"])
def test_no_norm_add_relu_to_fuse(name, tmp_path):
    """Protects float16 on GPU, where the kernel that takes the place of norm, Add and ReLU has NaN gradients."""
    ms.set_context(mode=ms.GRAPH_MODE)
    depths = (2, 1, 1, 1, 1) if "san" in name else (2, 1, 1, 1)
    network = create_model(name, num_classes=3, image_size=64, depths=depths, width=32).set_train(True)
    ms.export(
        network, Tensor(np.zeros((2, 3, 64, 64), np.float32)), file_name=str(tmp_path / "t"), file_format="MINDIR"
    )
    model = ModelProto()
    model.ParseFromString((tmp_path / "t.mindir").read_bytes())
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    made_by = {name: node for node in nodes for name in node.output}

    def operator(value):
        node = made_by.get(value)
        return node and node.op_type.split(":")[2 if node.op_type.startswith("REF") else 0]

    assert "BatchNorm" in {operator(value) for value in made_by}
    activated = [node.input[0] for node in nodes if operator(node.output[0]) == "ReLU"]
    assert activated and "Add" not in map(operator, activated)
