# SPDX-License-Identifier: Apache-2.0
"""What a training began with: which weights of a checkpoint its network took over."""

from typing import NamedTuple

from src.training.atomic import replacing


class Loaded(NamedTuple):
    """What `Task.load_pretrained` did.

    Attributes:
        line (str): in a line, for the log.
        loaded (list): names of the parameters that have their values from the file.
        new (list): names of those that do not.
        left_over (list): names of the file's that no parameter took.
    """

    line: str
    loaded: list
    new: list
    left_over: list

    def write(self, path):
        """Write the three lists into the text file `path`.

        Raises:
            UserError: it cannot be written.
        """
        titles = {"loaded": self.loaded, "new in this network": self.new, "left over in the file": self.left_over}
        lines = [self.line]
        for title, names in titles.items():
            lines += ["", f"{len(names)} {title}", *(f"  {name}" for name in names)]
        with replacing(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
