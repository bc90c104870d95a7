# SPDX-License-Identifier: Apache-2.0
"""How to join the two paths (paper, ablation of alpha and beta): either alone, or a sum with weights more or less free.

All sums begin with one half for both weights, so that they differ in nothing but what is learned.
"""

from mindspore import nn, ops

from src.errors import UserError
from src.ops.acmix import Mix
from src.study.picture import draw_accuracy, draw_points, name_variants, save, subplots
from src.study.report import accuracy_text, best_text, gain_text, mean_and_spread
from src.study.runs import Variant, built_with, with_options

IS_TIMED = False


class TiedSum(nn.Cell):
    """alpha * a + (1 - alpha) * b, as a `WeightedSum` of alpha and beta, (1,) each, that add up to 1 to begin with.

    The gradient of alpha is that of 1 - alpha in beta's place, and beta gets its opposite. So both move by opposite
    steps and always add up to 1; beta stays a parameter, and checkpoints are those of any ACmix.
    """

    def __init__(self, weighted_sum):
        super().__init__()
        self.weighted_sum = weighted_sum

    def construct(self, alpha, a, beta, b):
        # What is subtracted is zero, but not its gradient.
        one = alpha - (beta - ops.stop_gradient(beta))
        other = beta - (alpha - ops.stop_gradient(alpha))
        return self.weighted_sum(one, a, other, b)


def fix_both(mix):
    mix.alpha.requires_grad = mix.beta.requires_grad = False


def fix_beta(mix):
    mix.beta.requires_grad = False


def tie(mix):
    mix.weighted_sum = TiedSum(mix.weighted_sum)


def variants(config):
    """Return the six of them, for the ACmix model of a `Config`.

    Raises:
        UserError: an optimiser whose steps depend on the size of a parameter.
    """
    if config.optimizer.name == "lamb":
        raise UserError(
            "optimizer.name lamb takes steps in proportion to a parameter, which parts alpha and 1 - alpha; "
            "choose --optimizer.name adamw or momentum for this study"
        )
    alone = {path: with_options(config.model, paths=path) for path in ("convolution", "attention")}
    both = with_options(config.model, paths="both")
    return [
        Variant("convolution", "convolution only", alone["convolution"]),
        Variant("attention", "attention only", alone["attention"]),
        Variant("fixed", "sum, both fixed", both, built_with(Mix, fix_both)),
        Variant("one", "sum, alpha learned", both, built_with(Mix, fix_beta)),
        Variant("tied", "alpha and 1 - alpha", both, built_with(Mix, tie)),
        Variant("free", "alpha and beta", both),
    ]


def pairs(rows):
    """Return (row, other) of alpha and beta and each other variant."""
    return [(row, other) for row in rows if row["name"] == "free" for other in rows if other is not row]


def table(rows):
    """Return (head, rows) of text."""
    head = ("paths", "multiply-adds, M", "top-1, %", "alpha", "beta")
    return head, [
        (
            row["label"],
            f"{row['multiply_adds'] / 1e6:.1f}",
            accuracy_text(row),
            *(weight_text(row, path) for path in ("alpha", "beta")),
        )
        for row in rows
    ]


def weights(row, path):
    """Return all values of "alpha" or "beta" that a row's trainings ended with, over layers and seeds."""
    return [value for result in row["results"] for value in result[path].values()]


def weight_text(row, path):
    values = weights(row, path)
    if not values:
        return ""
    return f"{mean_and_spread(values)[0]:.2f} ({min(values):.2f} to {max(values):.2f})"


def draw(rows, setting, png):
    """Draw accuracy by variant, and the weights that were learned, where there are any."""
    figure, (accuracy, learned) = subplots(2)
    draw_accuracy(accuracy, rows)
    if sums := [row for row in rows if weights(row, "alpha")]:
        _draw_weights(learned, sums)
    else:
        learned.set_axis_off()
    save(figure, title(rows), setting, png)


def _draw_weights(axes, sums):
    for path, colour, side in (("alpha", "C0", -0.12), ("beta", "C1", 0.12)):
        label = {"alpha": "alpha (attention)", "beta": "beta (convolution)"}[path]
        draw_points(axes, [weights(row, path) for row in sums], colour, side, label)
    axes.set(title="Weights at the end, of every layer and seed", ylabel="weight of the path")
    name_variants(axes, sums)
    axes.legend()


def title(rows):
    """Say what is seen: the sum with both weights free beside the better of the two paths alone."""
    named = {row["name"]: row for row in rows}
    if not {"convolution", "attention", "free"} <= {*named}:
        return best_text(rows)
    better = max((named["convolution"], named["attention"]), key=lambda row: row["top1_mean"])
    gain = gain_text([(named["free"], better)])
    return f"Both paths, alpha and beta free: top-1 is {gain} against {better['label']}, the better of the two alone"
