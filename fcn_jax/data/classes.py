"""The names of the classes of a folder, and the table of their colours."""

import dataclasses
import re
from collections.abc import Sequence

from fcn_jax.data import examples, labels, names
from fcn_jax.data import files as files_lib
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.errors import UserError

FILE = "classes.txt"
LABELMAP_FILE = "labelmap.txt"  # As CVAT and Datumaro write it beside VOC's folders.

_LABELMAP_LINE = re.compile(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3}):[^:]*:[^:]*")


def of_masks(
    files: files_lib.Files, prefix: str, reading: examples.Reading
) -> tuple[tuple[str, ...], examples.Reading]:
    """Returns the classes of a set with one mask an image, and how to read the masks.

    Args:
        files: Has the lists of classes.
        prefix: Their folder: "" or a name that ends in "/".
        reading: As the settings say.

    Returns:
        The names, none if they are to be counted from the masks; and the reading, with
        the colours of a labelmap.txt if the names are from there.

    Raises:
        UserError: If a file is bad, or has not the classes of the label map.
    """
    found = read_classes(files, prefix + FILE)
    map_ = reading.label_map
    if not found and map_ is None and prefix + LABELMAP_FILE in files.names:
        found, map_ = read_labelmap(files, prefix + LABELMAP_FILE)
        return found, dataclasses.replace(reading, label_map=map_)
    if map_ is not None:
        if not found:
            found = tuple(f"class {i}" for i in range(map_.num_classes))
        if not 2 <= map_.num_classes <= len(found):
            raise UserError(
                f"data.label_map has {map_.num_classes} classes, but {files.path} has "
                f"{len(found)} names of classes; at least 2 are needed, and a name for "
                "each: correct data.label_map or classes.txt."
            )
    return found, reading


def of_folders(files: files_lib.Files, mask_dir: str) -> tuple[str, ...]:
    """Returns the classes of a multilabel set: those listed, else the folders, sorted.

    Raises:
        UserError: If there are no folders, or others than those listed.
    """
    root = files.path / mask_dir
    found = folders(files, mask_dir)
    if not found:
        raise UserError(
            f"{root} has no folders; a multilabel set has a folder of masks for each "
            "class there, and task=semantic has all classes in one mask."
        )
    listed = read_classes(files, FILE, at_least=1)
    if listed and sorted(listed) != found:
        raise UserError(
            f"{files.path / FILE} names {', '.join(listed)}, but the folders in {root} "
            f"are {names.printable(', '.join(found))}; they must be the same."
        )
    return listed or _checked(found, str(root), "Folder", at_least=1)


def folders(files: files_lib.Files, mask_dir: str) -> list[str]:
    """Returns the names of the folders in the folder of the masks, sorted."""
    inside = (files.path / mask_dir).iterdir()
    return sorted(p.name for p in inside if p.is_dir() and not p.name.startswith("."))


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
        if value in ids:
            raise UserError(
                f"Line {number} of {path} has the colour of a line before; every class "
                "needs its own."
            )
        ids[value] = len(found)
        found.append(match[1].strip())
    class_names = _checked(found, str(path), "Class")
    return class_names, label_map_lib.LabelMap(ids, colours=True, where=str(path))


def read_classes(
    files: files_lib.Files, where: str, *, at_least: int = 2
) -> tuple[str, ...]:
    """Returns the class names of a text file, by id, none if there is no such file.

    Raises:
        UserError: If a line is blank or comes twice, or there are too few or too many.
    """
    if where not in files.names:
        return ()
    found = [line.strip() for line in names.read_lines(files, where)]
    return _checked(found, str(files.path / where), "Line", at_least=at_least)


def _checked(
    found: Sequence[str], path: str, place: str, *, at_least: int = 2
) -> tuple[str, ...]:
    """Returns class names; raises UserError for bad ones, or too few or too many."""
    if not at_least <= len(found) <= labels.IGNORE:
        raise UserError(
            f"{path} names {len(found)} classes; there must be {at_least} to "
            f"{labels.IGNORE}."
        )
    for number, name in enumerate(found):
        if not name.isprintable():
            fault = f"has characters that cannot be printed ({ascii(name)})"
        elif not name:
            fault = "is blank"
        else:
            fault = f'has "{name}" again' if name in found[:number] else ""
        if fault:
            raise UserError(
                f"{place} {number + 1} of {path} {fault}; each must be the name of "
                "another class."
            )
    return tuple(found)
