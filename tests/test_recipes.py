# SPDX-License-Identifier: Apache-2.0
"""What a recipe adds to plain SGD: losses, LAMB, accumulation, averaged weights, skipped steps, repeatable chance."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.config import DeviceConfig, FinetuneConfig, LossConfig, OptimizerConfig, load_config
from src.device import World
from src.errors import UserError
from src.ops.drop_path import DropPath
from src.training.ema import Ema
from src.training.losses import create_loss
from src.training.optimizer import create_optimizer
from src.training.precision import create_scaler
from src.training.step import TrainStep


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


class Net(nn.Cell):
    """A weight, a bias, a norm whose statistics move, and chance."""

    def __init__(self, drop_path=0.0, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.fc = nn.Dense(4, 3)

    def construct(self, x):
        return self.fc(self.drop_path(self.norm(self.conv(x))).mean((2, 3)))


def images(size=8, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((size, 1, 6, 6)).astype(np.float32)
    return ms.Tensor(image), ms.Tensor(rng.integers(0, 3, size).astype(np.int32))


def values(network):
    return {parameter.name: parameter.asnumpy().copy() for parameter in network.get_parameters()}


def make(network, scaler=None, loss=None, ema_decay=0.0, steps=10, **options):
    config = OptimizerConfig(**{"weight_decay": 0.0, **options})
    optimizer = create_optimizer(network, config, np.full(steps, 0.5, np.float32))
    ema = Ema(network, ema_decay) if ema_decay else None
    loss = loss or create_loss(LossConfig())
    step = TrainStep(network, loss, optimizer, World(), scaler, config.clip_norm, config.micro_batches, ema)
    return step, optimizer, ema


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_losses(name, smoothing):
    """Protects both losses and their gradients against float64, for classes and shares, at 0 and at large logits."""
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((4, 5)) * np.array([[0], [1], [10], [60]])
    classes = np.array([1, 0, 4, 2], np.int32)
    loss = ms.value_and_grad(create_loss(LossConfig(name, smoothing)))
    for label in (classes, rng.dirichlet(np.ones(5), 4).astype(np.float32)):
        target = np.eye(5)[label] if label.ndim == 1 else label.astype(np.float64)
        target = (1 - smoothing) * target + smoothing / 5
        if name == "cross_entropy":
            log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            expected, slope = -(target * log_share).sum(1).mean(), (np.exp(log_share) - target) / 4
        else:
            expected = (np.logaddexp(0, logits) - target * logits).mean()
            slope = (1 / (1 + np.exp(-logits)) - target) / 20
        value, gradient = loss(ms.Tensor(logits.astype(np.float32)), ms.Tensor(label))
        assert value.dtype == ms.float32
        assert value.asnumpy() == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(gradient.asnumpy(), slope, atol=1e-6)


def test_lamb_is_the_published_formula():
    """Protects LAMB against its algorithm in float64: trust ratio on weights, none on biases and on zero weights."""
    rng = np.random.default_rng(0)
    network = nn.SequentialCell(nn.Dense(3, 4), nn.Dense(4, 2, weight_init="zeros"))
    lrs = np.array([0.1, 0.3, 0.2], np.float32)
    config = OptimizerConfig(name="lamb", beta1=0.8, beta2=0.99, epsilon=1e-6, weight_decay=0.1)
    optimizer = create_optimizer(network, config, lrs)
    expected = [p.asnumpy().astype(np.float64) for p in optimizer.parameters]
    first, second = [0.0] * 4, [0.0] * 4
    for step, lr in enumerate(lrs.astype(np.float64), start=1):
        gradients = [rng.standard_normal(v.shape) * 10.0 ** rng.integers(-4, 3) for v in expected]
        optimizer(optimizer.flattening.flatten([ms.Tensor(g.astype(np.float32)) for g in gradients]))
        for i, (parameter, gradient) in enumerate(zip(optimizer.parameters, gradients)):
            first[i] = 0.8 * first[i] + 0.2 * gradient
            second[i] = 0.99 * second[i] + 0.01 * gradient**2
            direction = first[i] / (1 - 0.8**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-6)
            if parameter.ndim > 1:
                direction += 0.1 * expected[i]
                norm = np.linalg.norm(expected[i])
                direction *= norm / np.linalg.norm(direction) if norm else 1.0
            expected[i] = expected[i] - lr * direction
            np.testing.assert_allclose(parameter.asnumpy(), expected[i], rtol=1e-5, atol=1e-6)
    assert int(optimizer.global_step.asnumpy()[0]) == len(lrs)


@pytest.mark.parametrize("soft", [False, True])
def test_parts_of_a_batch_equal_the_batch(soft):
    """Protects accumulation: 4 parts of 2 images give the loss, norm, clipping and weights of one batch of 8."""
    results = []
    for parts in (1, 4):
        ms.set_seed(2)
        network = Net(norm=False)
        step, _, _ = make(network, micro_batches=parts, clip_norm=0.2)
        outputs = []
        for number in range(3):
            image, label = images(seed=number)
            if soft:
                shares = np.random.default_rng(number).dirichlet(np.ones(3), len(label))
                label = ms.Tensor(shares.astype(np.float32))
            outputs += [output.asnumpy() for output in step(image, label)]
        results.append((outputs, values(network)))
    (outputs, weights), (outputs_of_parts, weights_of_parts) = results
    np.testing.assert_allclose(outputs_of_parts, outputs, rtol=1e-5)
    for name, weight in weights.items():
        np.testing.assert_allclose(weights_of_parts[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "loss_scale", "options"),
    [
        ("momentum", None, {"micro_batches": 4, "weight_decay": 0.1}),
        ("adamw", 1024.0, {"weight_decay": 0.1, "clip_norm": 0.1}),
        ("lamb", 0.0, {"micro_batches": 4, "weight_decay": 0.1}),
    ],
)
def test_a_step_without_finite_gradients_changes_nothing(name, loss_scale, options):
    """Protects weights, moments, statistics, averages and step count from one bad image, from the first step on."""
    scaler = None if loss_scale is None else create_scaler(DeviceConfig(amp_level="O2", loss_scale=loss_scale))
    network = Net()
    step, optimizer, ema = make(network, scaler, ema_decay=0.9, name=name, **options)
    image, label = images()
    spoilt = image.asnumpy().copy()
    spoilt[5, 0, 2, 2] = np.inf

    def state():
        parameters = [*network.get_parameters(), *optimizer.get_parameters(), *ema.averages]
        return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}

    for steps in range(2):
        before = state()
        loss, norm = step(ms.Tensor(spoilt), label)
        assert not np.isfinite(loss.asnumpy()) and not np.isfinite(norm.asnumpy())
        after = state()
        assert after.keys() == before.keys() and int(after["global_step"][0]) == steps
        for key, value in before.items():
            np.testing.assert_array_equal(after[key], value, err_msg=key)
        loss, norm = step(image, label)
        assert np.isfinite(loss.asnumpy()) and np.isfinite(norm.asnumpy())
        assert int(optimizer.global_step.asnumpy()[0]) == steps + 1
        # A bias in front of a norm and its like may stay where it is.
        moved = [key for key, value in state().items() if (value != before[key]).any()]
        assert {"conv.weight", "fc.weight", "norm.moving_mean", "ema.fc.weight"} <= {*moved}


@pytest.mark.parametrize("factor", [1.0, np.inf])
def test_a_step_begins_with_what_else_has_changed(factor):
    """Protects a checkpoint that is loaded after the step was made: from what that has kept of the weights before."""
    rng = np.random.default_rng(0)
    weights = {p.name: rng.uniform(0.1, 1, p.shape).astype(np.float32) for p in Net().get_parameters()}
    image, label = images()
    runs = []
    for is_loaded_late in (False, True):
        network = Net()
        if not is_loaded_late:
            load(network.get_parameters(), weights)
        step, _, ema = make(network, ema_decay=0.9, weight_decay=0.1)
        if is_loaded_late:
            load(network.get_parameters(), weights)
            load(ema.averages, {f"ema.{name}": value for name, value in weights.items()})
            step.begin()
        step(image * factor, label)
        runs.append(values(network) | {average.name: average.asnumpy().copy() for average in ema.averages})
    for name, value in runs[0].items():
        np.testing.assert_array_equal(runs[1][name], value, err_msg=name)


def load(parameters, weights):
    for parameter in parameters:
        parameter.set_data(ms.Tensor(weights[parameter.name]))


@pytest.mark.parametrize("loss_scale", [None, 1024.0])
def test_the_step_returns_the_norm_of_the_gradients(loss_scale):
    """Protects what is logged: the norm of the unscaled gradients before they are clipped."""
    scaler = create_scaler(DeviceConfig(amp_level="O2", loss_scale=loss_scale)) if loss_scale else None
    network = Net()
    step, optimizer, _ = make(network, scaler, clip_norm=1e-3)
    image, label = images()
    loss_of = nn.WithLossCell(network, create_loss(LossConfig()))
    loss, gradients = ms.value_and_grad(loss_of, None, optimizer.parameters)(image, label)
    norm = np.sqrt(sum((gradient.asnumpy().astype(np.float64) ** 2).sum() for gradient in gradients))
    outputs = step(image, label)
    assert [output.dtype for output in outputs] == [ms.float32, ms.float32]
    np.testing.assert_allclose([output.asnumpy() for output in outputs], [loss.asnumpy(), norm], rtol=1e-5)


def test_ema_follows_the_weights():
    """Protects the averages against their formula in float64, statistics of norms too; they start as the weights."""
    network = Net()
    step, _, ema = make(network, ema_decay=0.3)
    expected = {name: value.astype(np.float64) for name, value in values(network).items()}
    assert [average.name for average in ema.averages] == [f"ema.{name}" for name in expected]
    for count in range(1, 6):
        step(*images(seed=count))
        decay = min(0.3, (1 + count) / (10 + count))
        for average, (name, weight) in zip(ema.averages, values(network).items()):
            expected[name] = decay * expected[name] + (1 - decay) * weight
            np.testing.assert_allclose(average.asnumpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_ema_in_place_and_back():
    """Protects the swap: the network judges with the averages, then has its own weights again, bit for bit."""
    network = Net()
    step, _, ema = make(network, ema_decay=0.9)
    image, label = images()
    step(image, label)
    weights, averages = values(network), [average.asnumpy().copy() for average in ema.averages]
    logits = network.set_train(False)(image).asnumpy()
    with pytest.raises(KeyError), ema.in_place():
        for value, average in zip(values(network).values(), averages):
            np.testing.assert_array_equal(value, average)
        assert np.abs(network(image).asnumpy() - logits).max() > 1e-3
        raise KeyError
    for name, value in values(network).items():
        np.testing.assert_array_equal(value, weights[name])
    np.testing.assert_array_equal(network(image).asnumpy(), logits)
    for average, value in zip(ema.averages, averages):
        np.testing.assert_array_equal(average.asnumpy(), value)
    step.set_train()
    step(image, label)
    assert np.isfinite(network.conv.weight.asnumpy()).all()


def random_run(seed):
    """Return the weights that drop path leads to in three steps of two parts."""
    ms.set_seed(seed)
    network = Net(drop_path=0.5)
    step, _, _ = make(network, micro_batches=2)
    for number in range(3):
        step(*images(seed=number))
    return values(network)


def test_weights_and_drop_path_follow_the_seed():
    """Protects a run that can be repeated: the same seed gives the same bits, another one other weights and drops."""
    first, again, other = (random_run(seed) for seed in (1, 1, 2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert np.abs(first["fc.weight"] - other["fc.weight"]).max() > 1e-3


def test_drop_path_differs_between_parts():
    """Protects accumulation from dropping the same places of each part of a batch."""
    ms.set_seed(0)

    class Kept(nn.Cell):
        """Zero where the branch was dropped: the gradient of the bias counts what was kept."""

        def __init__(self):
            super().__init__()
            self.drop_path = DropPath(0.5)
            self.bias = ms.Parameter(ms.Tensor(np.zeros(32), ms.float32))

        def construct(self, x):
            return self.drop_path(x.reshape(x.shape[0], -1)[:, :1] * 0 + self.bias * x.reshape(x.shape[0], -1)[:, :32])

    class Sum(nn.Cell):
        def construct(self, logits, label):
            return logits.sum()

    network = Kept()
    step, _, _ = make(network, loss=Sum(), micro_batches=2, momentum=0.0)
    # Image n of each part alone reaches bias n: what moves the bias is how often it was kept in the two parts.
    image = np.concatenate([np.eye(32, 36), np.eye(32, 36)]).reshape(64, 1, 6, 6).astype(np.float32)
    step(ms.Tensor(image), ms.Tensor(np.zeros(64, np.int32)))
    counts = np.round(-network.bias.asnumpy() / 0.5).astype(int)
    assert set(counts) == {0, 1, 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer.beta1", "0.5"], "optimizer.beta1 belongs to adamw and lamb but optimizer.name is momentum"),
        (["--scheduler.factor", "0.5"], "scheduler.factor belongs to step and multi_step but scheduler.name is cosine"),
        (["--scheduler.name", "step", "--scheduler.min_lr", "0.1"], "scheduler.min_lr belongs to cosine and poly but"),
        (["--scheduler.name", "multi_step", "--scheduler.milestones", "[30, 20]"], "takes ascending epochs"),
        (["--scheduler.name", "multi_step", "--scheduler.milestones", "[3, 90]"], "from scheduler.warmup_epochs, 5.0,"),
        (["--scheduler.name", "step", "--scheduler.step_epochs", "3"], "scheduler.step_epochs is 3.0 but takes"),
        (["--scheduler.power", "2"], "scheduler.power belongs to poly but scheduler.name is cosine"),
        (
            ["--train.steps", "9", "--epochs", "3"],
            "train.epochs has no effect with train.steps; leave one of them out,",
        ),
        (["--scheduler.warmup_steps", "9", "--scheduler.warmup_epochs", "3"], "no effect with scheduler.warmup_steps"),
        (
            ["--train.steps", "9", "--scheduler.warmup_steps", "10"],
            "warmup_steps is 10 but takes at most train.steps, 9",
        ),
        (["--optimizer.micro_batches", "5"], "micro_batches is 5 but takes a divisor of data.batch_size, 32"),
        (["--optimizer.ema_decay", "1"], "optimizer.ema_decay is 1 but takes a number, from 0 to below 1"),
        (["--finetune.layer_decay", "0"], "finetune.layer_decay is 0 but takes a number, from 0.01 to 1"),
    ],
)
def test_settings_that_do_not_fit(words, message, tmp_path):
    """Protects from keys that would do nothing, and from numbers that do not go together: the flag is named."""
    path = tmp_path / "x.yaml"
    path.write_text("model: {name: m}\n")
    with pytest.raises(UserError) as error:
        load_config(path, words)
    assert message in str(error.value) and str(error.value).startswith(words[-2])


def test_pretrained_is_a_flag_of_its_own(tmp_path):
    """Protects the short command of fine-tuning."""
    path = tmp_path / "x.yaml"
    path.write_text("model: {name: m}\nfinetune: {freeze: stem.* layer1.*, layer_decay: 0.8}\n")
    assert load_config(path, ["--pretrained", "a.ckpt"]).finetune == FinetuneConfig("a.ckpt", 0.8, "stem.* layer1.*")
