# SPDX-License-Identifier: Apache-2.0
"""The learning rate of every step, and which parameters are decayed and moved by it."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore import nn

from src.errors import UserError
from src.training.optimizer import create_optimizer, parameter_groups
from src.training.schedule import learning_rates, scaled_lr
from src.training.step import TrainStep, loss_scale_of, mixed_precision

ALONE = SimpleNamespace(rank=0, size=1)


def scheduler(name="cosine", warmup_epochs=0.0, min_lr=0.0):
    return SimpleNamespace(name=name, warmup_epochs=warmup_epochs, min_lr=min_lr)


def test_cosine_with_warmup_at_known_steps():
    """Protects the published recipe: 5 warm-up epochs, then a cosine that ends at min_lr."""
    lrs = learning_rates(scheduler(warmup_epochs=5.0, min_lr=0.01), base_lr=0.4, steps_per_epoch=10, epochs=25)
    assert lrs.dtype == np.float32 and lrs.shape == (250,)
    assert lrs[0] == pytest.approx(0.4 / 50)
    assert lrs[24] == pytest.approx(0.2)
    assert lrs[49] == pytest.approx(0.4)
    assert lrs[149] == pytest.approx((0.4 + 0.01) / 2)
    assert lrs[249] == pytest.approx(0.01)


@given(
    name=st.sampled_from(["cosine", "constant"]),
    steps=st.integers(1, 40),
    epochs=st.integers(1, 30),
    warmup=st.floats(0, 1),
    base_lr=st.floats(1e-4, 10),
    floor=st.floats(0, 1),
)
def test_rate_climbs_to_the_peak_then_never_rises(name, steps, epochs, warmup, base_lr, floor):
    """Protects the shape for any length: up to the peak, then down (or flat), within [0, peak], to the right end."""
    config = scheduler(name, warmup_epochs=warmup * epochs, min_lr=floor * base_lr)
    lrs = learning_rates(config, base_lr, steps, epochs).astype(np.float64)
    ramp = round(config.warmup_epochs * steps)
    slack = 1e-6 * base_lr
    assert lrs.shape == (steps * epochs,)
    assert np.all(lrs > -slack) and np.all(lrs <= base_lr + slack)
    assert np.all(np.diff(lrs[:ramp]) > 0)
    assert np.all(np.diff(lrs[max(ramp - 1, 0) :]) <= slack)
    if ramp:
        assert lrs[ramp - 1] == pytest.approx(base_lr)
    if ramp < len(lrs):
        assert lrs[-1] == pytest.approx(base_lr if name == "constant" else config.min_lr, abs=slack)


def test_climbing_cosine_is_refused():
    """Protects the user from a min_lr above the scaled peak, which the configuration cannot know."""
    with pytest.raises(UserError, match=r"min_lr 0\.2 is above"):
        learning_rates(scheduler(min_lr=0.2), 0.1, 10, 3)


def test_linear_scaling_rule():
    """Protects lr per 256 images of the global batch, and the way to switch it off."""
    assert scaled_lr(SimpleNamespace(lr=0.1, lr_batch=256), batch_size=32, world_size=8) == pytest.approx(0.1)
    assert scaled_lr(SimpleNamespace(lr=0.1, lr_batch=256), batch_size=64, world_size=1) == pytest.approx(0.025)
    assert scaled_lr(SimpleNamespace(lr=0.1, lr_batch=0), batch_size=64, world_size=4) == 0.1


class TinyNet(nn.Cell):
    """Has every kind of parameter: weights, bias, norm, a scalar, a frozen weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Conv2d(4, 4, 1)
        self.frozen.weight.requires_grad = False
        self.alpha = ms.Parameter(ms.Tensor(0.5, ms.float32))
        self.fc = nn.Dense(4, 3)

    def construct(self, x):
        x = self.norm(self.conv(x))
        return self.fc((self.alpha * x + self.frozen(x)).mean((2, 3)))


def test_only_weights_are_decayed_and_frozen_ones_left_out():
    """Protects the recipe: no decay on norms, biases and alpha; frozen shifts are no business of the optimiser."""
    decayed, plain = parameter_groups(TinyNet(), weight_decay=1e-4)
    assert decayed["weight_decay"] == 1e-4 and plain["weight_decay"] == 0.0
    assert {p.name for p in decayed["params"]} == {"conv.weight", "fc.weight"}
    assert {p.name for p in plain["params"]} == {"norm.gamma", "norm.beta", "alpha", "fc.bias"}


def batch(seed=0, size=6):
    rng = np.random.default_rng(seed)
    return (
        ms.Tensor(rng.standard_normal((size, 1, 8, 8)).astype(np.float32)),
        ms.Tensor(rng.integers(0, 3, size).astype(np.int32)),
    )


def sgd(lr_steps, weight_decay=0.1, amp_level="O0"):
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    network = TinyNet()
    config = SimpleNamespace(momentum=0.9, weight_decay=weight_decay)
    optimizer = create_optimizer(network, config, np.array(lr_steps, np.float32), loss_scale_of(amp_level))
    step = TrainStep(mixed_precision(network, amp_level), nn.CrossEntropyLoss(), optimizer, ALONE)
    return network, optimizer, step


def test_step_is_sgd_with_momentum():
    """Protects the update rule against a NumPy SGD fed with the same gradients: momentum, coupled decay, lr by step."""
    lrs = [0.5, 0.25, 0.125]
    network, optimizer, step = sgd(lrs)
    loss_of = nn.WithLossCell(network, nn.CrossEntropyLoss())
    gradient_of = ms.value_and_grad(loss_of, None, optimizer.parameters)
    expected = {p.name: p.asnumpy().astype(np.float64) for p in optimizer.parameters}
    velocity = {name: 0.0 for name in expected}
    image, label = batch()
    for lr in lrs:
        loss, gradients = gradient_of(image, label)
        for parameter, gradient in zip(optimizer.parameters, gradients):
            name = parameter.name
            decay = 0.1 if parameter.ndim > 1 else 0.0
            gradient = gradient.asnumpy() + decay * expected[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            expected[name] -= lr * velocity[name]
        assert step(image, label).asnumpy() == pytest.approx(loss.asnumpy(), rel=1e-5)
        for parameter in optimizer.parameters:
            np.testing.assert_allclose(parameter.asnumpy(), expected[parameter.name], rtol=1e-4, atol=1e-5)
    assert int(optimizer.global_step.asnumpy()[0]) == len(lrs)


def test_float16_step_stays_near_the_float32_one():
    """Protects O2: the loss scale cancels, the loss comes out unscaled, parameters stay float32 under their names."""
    exact, _, exact_step = sgd([0.1] * 3)
    half, _, half_step = sgd([0.1] * 3, amp_level="O2")
    for i in range(3):
        image, label = batch(i)
        assert half_step(image, label).asnumpy() == pytest.approx(exact_step(image, label).asnumpy(), rel=5e-3)
    halves = {p.name: p for p in half.get_parameters()}
    for parameter in exact.get_parameters():
        assert halves[parameter.name].dtype == ms.float32
        np.testing.assert_allclose(halves[parameter.name].asnumpy(), parameter.asnumpy(), rtol=0.02, atol=2e-3)
