# SPDX-License-Identifier: Apache-2.0
"""Several runs together: their losses and accuracies over the epochs."""

from src.errors import UserError
from src.figures.picture import picture
from src.training.metrics import read_metrics


def plot_runs(runs, png):
    """Draw training loss, validation loss and top-1 of each run over its epochs, a colour for each run.

    Args:
        runs (dict): name of a run -> its metrics.jsonl.
        png: the picture file to write.

    Raises:
        UserError: a run has no evaluation yet, or the picture cannot be written.
    """
    with picture(png, 1, 2, (12, 4.5)) as (_, (loss, accuracy)):
        for number, (name, metrics_jsonl) in enumerate(runs.items()):
            lines = read_metrics(metrics_jsonl)
            train = [line for line in lines if line["kind"] == "train" and line["loss"] is not None]
            evaluation = [line for line in lines if line["kind"] == "eval"]
            if not evaluation:
                raise UserError(f"{metrics_jsonl} has no evaluation yet; train for an epoch first")
            # The last epoch may be a short one.
            steps_per_epoch = max(line["step"] / line["epoch"] for line in evaluation)
            colour, best = f"C{number}", max(line["top1"] for line in evaluation)
            epochs = [line["epoch"] for line in evaluation]
            loss.plot(
                [line["step"] / steps_per_epoch for line in train], [line["loss"] for line in train], color=colour
            )
            loss.plot(epochs, [line["loss"] for line in evaluation], color=colour, linestyle="--")
            accuracy.plot(
                epochs,
                [line["top1"] for line in evaluation],
                color=colour,
                marker="o",
                markersize=3,
                label=f"{name} (best {best:.1f} %)",
            )
        loss.set(title="Loss: training (solid), validation (dashed)", ylabel="cross entropy (nats)", xlabel="epoch")
        accuracy.set(title="Accuracy on the validation images", ylabel="top-1 (%)", xlabel="epoch")
        accuracy.legend()
        for axes in (loss, accuracy):
            axes.grid(alpha=0.3)
