"""The names of the classes of a folder, and the table of their colours."""

import re

from fcn_jax.data import files as files_lib
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.data import labels, names
from fcn_jax.errors import UserError

FILE = "classes.txt"
LABELMAP_FILE = "labelmap.txt"  # As CVAT and Datumaro write it beside VOC's folders.

_LABELMAP_LINE = re.compile(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3}):[^:]*:[^:]*")


def read_labelmap(
    files: files_lib.Files, where: str
) -> tuple[tuple[str, ...], label_map_lib.LabelMap]:
    """Returns the class names and the colours of a labelmap.txt.

    Its lines are ``name:red,green,blue:parts:actions``; the first is class 0.

    Raises:
        UserError: If a line is another, or a name or a colour comes twice.
    """
    path, ids = files.path / where, {}
    found = []
    for number, line in enumerate(names.read_lines(files, where), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LABELMAP_LINE.fullmatch(line.strip())
        colour = [int(v) for v in match.groups()[1:]] if match else [256]
        if max(colour) > 255:
            raise UserError(
                f"Line {number} of {path} is {line[:60]!r}; it must be "
                "NAME:RED,GREEN,BLUE:: with values of 0 to 255."
            )
        value = colour[0] << 16 | colour[1] << 8 | colour[2]
        if match[1] in found or value in ids:
            raise UserError(
                f"Line {number} of {path} has the name or the colour of a line before; "
                "every class needs its own."
            )
        ids[value] = len(found)
        found.append(match[1])
    if not 2 <= len(found) < labels.IGNORE:
        raise UserError(
            f"{path} names {len(found)} classes; there must be 2 to "
            f"{labels.IGNORE - 1}."
        )
    return tuple(found), label_map_lib.LabelMap(ids, colours=True)


def read_classes(
    files: files_lib.Files, where: str, *, at_least: int = 2
) -> tuple[str, ...]:
    """Returns the class names of a text file, by id, none if there is no such file.

    Raises:
        UserError: If a line is blank or comes twice, or there are too few or too many.
    """
    path = files.path / where
    if where not in files.names:
        return ()
    found = tuple(line.strip() for line in names.read_lines(files, where))
    if not at_least <= len(found) <= labels.IGNORE:
        raise UserError(
            f"{path} names {len(found)} classes; there must be {at_least} to "
            f"{labels.IGNORE}."
        )
    for number, name in enumerate(found):
        if not name.isprintable():
            fault = "has characters that cannot be printed"
        elif not name:
            fault = "is blank"
        else:
            fault = f'has "{name}" again' if name in found[:number] else ""
        if fault:
            raise UserError(
                f"Line {number + 1} of {path} {fault}; every line must be the name of "
                "another class."
            )
    return found
