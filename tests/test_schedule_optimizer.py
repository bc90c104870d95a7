# SPDX-License-Identifier: Apache-2.0
"""The learning rate of every step, and which parameters are decayed and moved by it."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import nn

from src.config import DeviceConfig, LossConfig, OptimizerConfig, SchedulerConfig
from src.errors import UserError
from src.models import create_model
from src.training.losses import create_loss
from src.training.optimizer import create_optimizer, parameter_groups
from src.training.precision import create_scaler, mixed_precision
from src.training.schedule import learning_rates, scaled_lr
from src.training.step import TrainStep

ALONE = SimpleNamespace(rank=0, size=1)


def scheduler(name="cosine", warmup_epochs=0.0, **options):
    return SchedulerConfig(name=name, warmup_epochs=warmup_epochs, **options)


def test_cosine_with_warmup_at_known_steps():
    """Protects the published recipe: 5 warm-up epochs, then a cosine that ends at min_lr."""
    lrs = learning_rates(scheduler(warmup_epochs=5.0, min_lr=0.01), base_lr=0.4, steps_per_epoch=10, steps=250)
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
    lrs = learning_rates(config, base_lr, steps, steps * epochs).astype(np.float64)
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


def test_drops_at_known_steps():
    """Protects the stepwise schedules: a drop begins with the epoch after it, counted from the start of training."""
    lrs = learning_rates(scheduler("step", warmup_epochs=1.0, step_epochs=2.0, factor=0.1), 0.4, 10, 70)
    np.testing.assert_allclose(lrs[:10], 0.04 * np.arange(1, 11), rtol=1e-6)
    np.testing.assert_allclose(lrs[10:], np.repeat([0.4, 0.04, 0.004, 0.0004], [10, 20, 20, 10]), rtol=1e-6)
    lrs = learning_rates(scheduler("multi_step", milestones=[1.0, 2.5], factor=0.5), 0.8, 10, 40)
    np.testing.assert_allclose(lrs, np.repeat([0.8, 0.4, 0.2], [10, 15, 15]), rtol=1e-6)


@given(
    period=st.integers(1, 8), milestones=st.lists(st.integers(1, 19), min_size=1, unique=True), steps=st.integers(1, 9)
)
def test_drops_as_torch_defines_them(period, milestones, steps):
    """Protects agreement with torch's StepLR and MultiStepLR, which multiply by gamma when an epoch counter gets there.

    With a step an epoch the rates are those of torch 2.13 (compared once); here its rule is written out.
    """
    config = scheduler("step", step_epochs=float(period), factor=0.5)
    expected = [0.5 ** (epoch // period) for epoch in range(20) for _ in range(steps)]
    np.testing.assert_allclose(learning_rates(config, 1.0, steps, 20 * steps), expected, rtol=1e-6)
    config = scheduler("multi_step", milestones=sorted(map(float, milestones)), factor=0.5)
    expected = [0.5 ** sum(epoch >= m for m in milestones) for epoch in range(20) for _ in range(steps)]
    np.testing.assert_allclose(learning_rates(config, 1.0, steps, 20 * steps), expected, rtol=1e-6)


@given(
    base_lr=st.floats(1e-5, 1),
    share=st.floats(0, 1),
    power=st.sampled_from([0.9, 1.0, 2.0]),
    ratio=st.sampled_from([1e-6, 0.001, 0.5]),
    steps=st.integers(2, 60),
    warmup=st.integers(0, 60),
)
def test_poly_as_mmcv_defines_it(base_lr, share, power, ratio, steps, warmup):
    """Protects agreement with mmcv's hooks, written out: the warm-up multiplies a rate that falls from the start on."""
    warmup, min_lr = min(warmup, steps), share * base_lr
    expected = []
    for iteration in range(steps):
        rate = (base_lr - min_lr) * (1 - iteration / steps) ** power + min_lr
        if iteration < warmup:
            rate *= 1 - (1 - iteration / warmup) * (1 - ratio)
        expected.append(rate)
    config = scheduler("poly", warmup_steps=warmup, warmup_ratio=ratio, min_lr=min_lr, power=power)
    np.testing.assert_allclose(learning_rates(config, base_lr, 7, steps), expected, rtol=1e-6)


def test_warmup_in_steps():
    """Protects that it is the warm-up in epochs, counted otherwise, for every schedule."""
    for name in ("cosine", "poly", "constant", "step"):
        in_epochs = learning_rates(scheduler(name, warmup_epochs=1.5), 0.4, 10, 40)
        in_steps = learning_rates(SchedulerConfig(name, warmup_steps=15), 0.4, 10, 40)
        np.testing.assert_array_equal(in_steps, in_epochs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (scheduler(min_lr=0.2), r"min_lr 0\.2 is above"),
        (scheduler("poly", min_lr=0.2), r"min_lr 0\.2 is above"),
        (scheduler("poly", warmup_steps=31), "warm-up has 31 steps and the whole training 30"),
        (scheduler("multi_step", milestones=[1.0, 3.0]), "drops at steps 10, 30 but"),
        (scheduler("multi_step", warmup_steps=11, milestones=[1.0, 2.0]), "end of the warm-up, 11, to below"),
    ],
)
def test_schedules_that_do_not_fit_the_steps_are_refused(config, message):
    """Protects the user from what only the number of images tells: peaks below the end, drops in a warm-up."""
    with pytest.raises(UserError, match=message):
        learning_rates(config, 0.1, 10, 30)


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


def test_no_decay_by_name():
    """Protects recipes that decay otherwise: by patterns, or everything; a pattern without a parameter is refused."""

    def plain(no_decay):
        groups = parameter_groups(TinyNet(), 0.1, no_decay=no_decay)
        assert sum(len(group["params"]) for group in groups) == 6
        return {p.name for group in groups if not group["weight_decay"] for p in group["params"]}

    assert plain("none") == set()
    assert plain("norm.* *.bias") == {"norm.gamma", "norm.beta", "fc.bias"}
    with pytest.raises(UserError, match=r"optimizer\.no_decay: no trainable parameter is called nrm\.\*; did you mean"):
        plain("nrm.*")


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
    optimizer = create_optimizer(network, OptimizerConfig(weight_decay=weight_decay), np.array(lr_steps, np.float32))
    forward, scaler = mixed_precision(network, amp_level), create_scaler(DeviceConfig(amp_level=amp_level))
    step = TrainStep(forward, create_loss(LossConfig(label_smoothing=0.0)), optimizer, ALONE, scaler)
    return network, optimizer, step


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_step_is_sgd_with_momentum(device, built_for):
    """Protects the update rule against a NumPy SGD fed with the same gradients: momentum, coupled decay, lr by step."""
    built_for(device)
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
        assert step(image, label)[0].asnumpy() == pytest.approx(loss.asnumpy(), rel=1e-5)
        for parameter in optimizer.parameters:
            np.testing.assert_allclose(parameter.asnumpy(), expected[parameter.name], rtol=1e-4, atol=1e-5)
    assert int(optimizer.global_step.asnumpy()[0]) == len(lrs)


def test_float16_step_stays_near_the_float32_one():
    """Protects O2: the loss scale cancels, the loss comes out unscaled, parameters stay float32 under their names."""
    exact, _, exact_step = sgd([0.1] * 3)
    half, _, half_step = sgd([0.1] * 3, amp_level="O2")
    for i in range(3):
        image, label = batch(i)
        for half_value, exact_value in zip(half_step(image, label), exact_step(image, label)):
            np.testing.assert_allclose(half_value.asnumpy(), exact_value.asnumpy(), rtol=5e-3)
    halves = {p.name: p for p in half.get_parameters()}
    for parameter in exact.get_parameters():
        assert halves[parameter.name].dtype == ms.float32
        np.testing.assert_allclose(halves[parameter.name].asnumpy(), parameter.asnumpy(), rtol=0.02, atol=2e-3)


def test_no_decay_on_tables_of_positions():
    """Protects the recipe of the transformers: position tables and the class token have two axes but are no weights."""
    for name, options in (
        ("acmix_swin_tiny", {"depths": (1, 1, 1, 1), "width": 8, "heads": 1, "image_size": 32}),
        ("acmix_pvt_tiny", {"image_size": 32}),
    ):
        plain = parameter_groups(create_model(name, num_classes=4, **options), weight_decay=0.05)[1]["params"]
        tables = {p.name.rpartition(".")[2] for p in plain if p.ndim > 1}
        assert tables == ({"position"} if "swin" in name else {"position", "class_token"})


@given(seed=st.integers(0, 99), decay=st.floats(0, 0.5), epsilon=st.sampled_from([1e-8, 1e-3]))
@settings(max_examples=5, deadline=None)
def test_adamw_is_the_published_formula(seed, decay, epsilon):
    """Protects AdamW against its definition in float64: bias correction, decay apart from the gradient, lr by step."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(seed)
    network = nn.Dense(3, 4)
    lrs = [0.01, 0.03, 0.02]
    config = OptimizerConfig(name="adamw", beta1=0.8, beta2=0.99, epsilon=epsilon, weight_decay=decay)
    optimizer = create_optimizer(network, config, np.array(lrs, np.float32))
    values = [p.asnumpy().astype(np.float64) for p in optimizer.parameters]
    first, second = [0.0, 0.0], [0.0, 0.0]
    for step, lr in enumerate(lrs, start=1):
        gradients = [rng.standard_normal(v.shape) * 10.0 ** rng.integers(-5, 3) for v in values]
        optimizer(optimizer.flattening.flatten([ms.Tensor(g.astype(np.float32)) for g in gradients]))
        for i, (parameter, gradient) in enumerate(zip(optimizer.parameters, gradients)):
            first[i] = 0.8 * first[i] + 0.2 * gradient
            second[i] = 0.99 * second[i] + 0.01 * gradient**2
            values[i] *= 1 - lr * (decay if parameter.ndim > 1 else 0.0)
            values[i] -= lr * first[i] / (1 - 0.8**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + epsilon)
            np.testing.assert_allclose(parameter.asnumpy(), values[i], rtol=1e-5, atol=1e-6)
    assert int(optimizer.global_step.asnumpy()[0]) == len(lrs)


@pytest.mark.parametrize("amp_level", ["O0", "O1"])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_gradients_are_clipped_by_their_common_norm(share, amp_level):
    """Protects clipping: a norm above the limit is shrunk to it, one below stays, whatever the loss scale."""
    network, optimizer, _ = sgd([1.0], weight_decay=0.0)
    before = {p.name: p.asnumpy().copy() for p in optimizer.parameters}
    image, label = batch()
    loss_of = nn.WithLossCell(network, nn.CrossEntropyLoss())
    _, gradients = ms.value_and_grad(loss_of, None, optimizer.parameters)(image, label)
    norm = np.sqrt(sum((g.asnumpy().astype(np.float64) ** 2).sum() for g in gradients))
    # The network stays in float32 here: only the scale of the level's loss has to come out of the norm again.
    scaler = create_scaler(DeviceConfig(amp_level=amp_level))
    step = TrainStep(
        network, create_loss(LossConfig(label_smoothing=0.0)), optimizer, ALONE, scaler, clip_norm=float(share * norm)
    )
    step(image, label)
    for parameter, gradient in zip(optimizer.parameters, gradients):
        moved = before[parameter.name] - parameter.asnumpy()
        np.testing.assert_allclose(moved, min(share, 1.0) * gradient.asnumpy(), rtol=1e-3, atol=1e-6)


def test_labels_may_be_probabilities():
    """Protects mixup and cutmix: a label as a distribution gives the smoothed cross entropy of that distribution."""
    network, optimizer, _ = sgd([0.0])
    image, label = batch()
    shares = np.random.default_rng(0).dirichlet(np.ones(3), len(label)).astype(np.float32)
    step = TrainStep(network, create_loss(LossConfig()), optimizer, ALONE)
    loss = step(image, ms.Tensor(shares))[0].asnumpy()
    logits = network.set_train()(image).asnumpy().astype(np.float64)
    likelihoods = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-((0.9 * shares + 0.1 / 3) * likelihoods).sum(1).mean(), rel=1e-4)
