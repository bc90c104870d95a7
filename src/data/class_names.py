# SPDX-License-Identifier: Apache-2.0
"""Names that people read for classes whose folders have others: `class_names.txt` in the data folder."""

from pathlib import Path

from src.errors import UserError

FILE = "class_names.txt"


def name_classes(data_dir, classes):
    """Return the names of `classes`: those of data_dir/class_names.txt, else, or without that file, the folders' own.

    Its lines are "FOLDER<tab>NAME"; folders that are not among `classes` may stand there, too.

    Raises:
        UserError: the file cannot be read, or a line has no tab.
    """
    path = Path(data_dir, FILE)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return classes
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot read {path} ({error}); mend or remove it") from error
    names = {}
    for number, line in enumerate(lines, 1):
        folder, tab, name = line.partition("\t")
        if not (tab and name.strip()):
            raise UserError(f"{path}, line {number}: takes the folder of a class, a tab and its name; mend it")
        names[folder] = name.strip()
    return [names.get(folder, folder) for folder in classes]


def write_class_names(data_dir, names):
    """Write `names`, `{folder: name}`, as data_dir/class_names.txt."""
    Path(data_dir, FILE).write_text("".join(f"{folder}\t{name}\n" for folder, name in names.items()), encoding="utf-8")
