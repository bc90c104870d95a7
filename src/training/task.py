# SPDX-License-Identifier: Apache-2.0
"""What differs between tasks. The trainer is handed a `Task` and knows no other difference."""


class Task:
    """What a network of one experiment learns from, by what, and how it is judged.

    First comes `open_to_train`, or `open_to_judge`: they find the images, and what the numbers of their classes mean.

    Args:
        config (Config): the experiment.

    Attributes:
        best (str): the number of `Judge.result` by which the best weights are chosen, in percent; the more the better.
        best_name (str): what people call it.
        drawn (dict): the numbers that `curves.png` draws beside the loss: {number: name}, in percent.
        images (dict): how many images "train" and "val" have, of all workers.
        notes (list): lines on what one may not expect of the images.
        heads (tuple): what `model.head` takes.
        usual_classes (int): of the data set that its networks are published for.
        deployment (type): the `src.training.deployment.Deployment` of its networks.
    """

    best, best_name, drawn = "", "", {}
    heads, usual_classes = (), 1000
    deployment = None

    def __init__(self, config):
        self.config, self.images, self.notes = config, {}, []

    @property
    def judged_at_once(self):
        """How many images a batch of "val" has."""
        return self.config.data.batch_size

    def build(self):
        """Return the network, freshly initialised."""
        raise NotImplementedError

    def open_to_train(self):
        """Find the images to train and to evaluate with; `UserError` if they cannot be used."""
        raise NotImplementedError

    def open_to_judge(self, record, whose):
        """Find the images to evaluate a network with that knows the classes of `record`, see `adopt`."""
        raise NotImplementedError

    def record(self):
        """Return what a checkpoint says of the classes, as JSON values."""
        raise NotImplementedError

    def adopt(self, record, whose):
        """Number the classes as `record` does: `record()` of an earlier run, or a dict that holds it.

        Args:
            whose (str): record this is, for messages.

        Raises:
            UserError: the images are of other classes.
        """
        raise NotImplementedError

    def load_pretrained(self, network, path):
        """Begin with the weights of another training as far as they fit; return what was `Loaded`.

        Raises:
            UserError: they do not fit, or the file cannot be read.
        """
        raise NotImplementedError

    def check(self, splits, world):
        """Look at every image of `splits` ("train", "val"); name those that cannot be used.

        The workers of a job share the images, and each of them has to call it.

        Raises:
            UserError: there are some that are not to be left out.
        """
        raise NotImplementedError

    def batches(self, split, world, epoch=0):
        """Return one epoch of batches of `world`'s worker, as a data set of MindSpore.

        Args:
            split (str): "train": whole batches, in an order that follows `train.seed` and `epoch`; or "val": each image
                once over all workers.
        """
        raise NotImplementedError

    def list_files(self, split):
        """List the files of a split of its own data set, to be packed (`src.data.packing.Packing`) or measured.

        Args:
            split (str): its name, or that of a folder, as the configuration or the data set has it.

        Raises:
            UserError: they cannot be listed.
        """
        raise NotImplementedError

    def files_beside(self):
        """Return the files, below the data folder, that packed images need beside them.

        Raises:
            UserError: one of them cannot be used.
        """
        return []

    def yardstick(self):
        """Return what plain OpenCV does to make an image to train with: its name, and a function.

        The function takes what `list_files` returned and the position of an image. It is what the speed of `batches` is
        measured against.
        """
        raise NotImplementedError

    def made_up(self, images):
        """Return a batch of so many images that nobody took, as arrays: to measure with."""
        raise NotImplementedError

    def loss(self, network):
        """Return a Cell from what `network` gives in training, and the rest of a batch, to the mean loss."""
        raise NotImplementedError

    def judge(self, forward):
        """Return the `Judge` of what `forward`, the network perhaps in mixed precision, answers."""
        raise NotImplementedError

    def told(self, result):
        """Return what `Judge.result` returned, for people, in a few words."""
        raise NotImplementedError

    def describe(self, meta, network):
        """Return what is to be known of a network outside, as JSON values; `deployment` is made of it.

        Args:
            meta (dict): of its checkpoint, which holds `record()`.
            network (nn.Cell): the same.

        Raises:
            UserError: the data folder contradicts it.
        """
        raise NotImplementedError

    def judge_file(self, model, whose):
        """Find the images to evaluate an exported file with, as it takes them, and return the `Judge` of its answers.

        Args:
            model: has card, the description, batch_size, images it takes at once or None for any number, and
                `results(images)`.
            whose (str): file this is, for messages.

        Raises:
            UserError: the images, or their classes, are others than the file was made for.
        """
        raise NotImplementedError


class Judge:
    """Adds up how good the answers to many batches are.

    Attributes:
        step (nn.Cell): what runs for a batch, the network within it.
        compiling_s (float): seconds that graphs took which `add` had to make, as one for an image of a new size.
    """

    step, compiling_s = None, 0.0

    def compile(self):
        """Make the graphs whose sizes are known, so that their time is not that of the first batch."""
        raise NotImplementedError

    def begin(self):
        """Forget what was added."""
        raise NotImplementedError

    def add(self, *batch):
        """Judge the answers to the Tensors of a batch, which may be a short one; return the classes that were found."""
        raise NotImplementedError

    def result(self, world):
        """Return the numbers over all workers, each of which has to call this; "samples", how many images, among them.

        Raises:
            UserError: there was no image.
        """
        raise NotImplementedError

    def write_per_class(self, path, world):
        """Write the results of each class into files at `path`, a .csv; every worker has to call it."""
        raise NotImplementedError
