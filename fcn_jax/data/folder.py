"""A user's own images and masks, in one of two layouts.

PASCAL VOC's layout, with lists that make the splits::

    source/classes.txt
    source/ImageSets/Segmentation/train.txt, val.txt, ...   (one name a line)
    source/JPEGImages/NAME.jpg
    source/SegmentationClass/NAME.png

Two parallel folders, split at random::

    source/classes.txt
    source/images/NAME.jpg
    source/masks/NAME.png

A line of ``classes.txt`` is the name of a class; the first is that of id 0. Images may
be of any type of `IMAGE_SUFFIXES`, masks of any of `MASK_SUFFIXES`.
"""

import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence

from fcn_jax.data import builder, labels
from fcn_jax.data import files as files_lib
from fcn_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # Those that keep every value.

_LISTS = "ImageSets/Segmentation/"
_CLASSES = "classes.txt"


def scan(
    source: str,
    *,
    image_dir: str = "images",
    mask_dir: str = "masks",
    val_fraction: float = 0.2,
    split_seed: int = 0,
) -> builder.SegmentationConfig:
    """Lists the images and masks of a folder, or of a .tar file in VOC's layout.

    Args:
        source: The folder.
        image_dir: For two parallel folders: the images', absolute or below the source.
        mask_dir: The masks'.
        val_fraction: For two parallel folders: the share of the images in "val".
        split_seed: For two parallel folders: picks those.

    Raises:
        UserError: If something is missing, as its sentence says.
    """
    if not source:
        raise UserError(
            'The data set "folder" needs a source: give the folder of your images.'
        )
    files = files_lib.open_files(source)
    if any(name.startswith(_LISTS) for name in files.names):
        return scan_voc_layout(files)
    for name in (image_dir, mask_dir):
        if not (files.path / name).is_dir():
            raise UserError(
                f"{source} has neither lists {_LISTS}*.txt nor a folder {name}; "
                "arrange it in one of these ways, or say which folders have the images "
                "and the masks."
            )
    items = _match(files, image_dir, mask_dir)
    splits = _split_at_random(items, val_fraction, split_seed)
    return builder.make_config(files.path, files, splits, read_classes(files, _CLASSES))


def scan_voc_layout(
    files: files_lib.Files,
    prefix: str = "",
    *,
    class_names: Sequence[str] | None = None,
    splits: Iterable[str] | None = None,
) -> builder.SegmentationConfig:
    """Lists the images and masks of PASCAL VOC's layout.

    Args:
        files: Has the files.
        prefix: The layout's folder among them, such as "VOCdevkit/VOC2012/"; "" if it
            is at the top.
        class_names: The classes; None: those of classes.txt.
        splits: The lists to use; None: all.

    Raises:
        UserError: If something is missing or listed twice, as its sentence says.
    """
    if class_names is None:
        class_names = read_classes(files, prefix + _CLASSES)
    lists = prefix + _LISTS
    if splits is None:
        splits = sorted(
            name.removeprefix(lists).removesuffix(".txt")
            for name in files.names
            if name.startswith(lists) and name.endswith(".txt")
        )
        if not splits:
            raise UserError(
                f"{files.path / lists} has no list; put a train.txt and a val.txt "
                "there, with the name of an image, without its ending, on each line."
            )
    image_files = _by_stem(files.names, prefix + "JPEGImages/", IMAGE_SUFFIXES)
    mask_files = _by_stem(files.names, prefix + "SegmentationClass/", MASK_SUFFIXES)
    items = {}
    for split in splits:
        where = f"{lists}{split}.txt"
        items[split] = [
            builder.Item(
                name,
                _listed(name, where, prefix + "JPEGImages/", image_files),
                _listed(name, where, prefix + "SegmentationClass/", mask_files),
            )
            for name in read_list(files, where)
        ]
    return builder.make_config(files.path / prefix, files, items, class_names)


def read_list(files: files_lib.Files, where: str) -> list[str]:
    """Returns the first word of each line that is not blank."""
    split = pathlib.PurePosixPath(where).stem
    if not re.fullmatch(r"\w+", split) or split == "all":
        raise UserError(
            f'The list {where} cannot name a split "{split}"; give it a name of '
            'letters, digits and "_", other than "all".'
        )
    names = [line.split()[0] for line in _read_lines(files, where) if line.strip()]
    if not names:
        raise UserError(
            f"The list {where} names no image; add the names of the split's images, "
            "without their endings, one a line, or remove the list."
        )
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(f'The list {where} has "{name}" twice; remove one.')
        seen.add(name)
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f'The list {where} has "{name}", which leads out of the folder of the '
                "images; list the names of images inside it, without their endings."
            )
    return names


def _listed(name: str, where: str, folder: str, found: dict[str, str]) -> str:
    if name not in found:
        what = "mask" if folder.endswith("SegmentationClass/") else "image"
        raise UserError(
            f'The list {where} has "{name}", but there is no {what} {folder}{name} '
            f"(of type {', '.join(_suffixes(what))}); add the {what}, or take the "
            "name, which must be without an ending, from the list."
        )
    return found[name]


def _suffixes(what: str) -> Sequence[str]:
    return IMAGE_SUFFIXES if what == "image" else MASK_SUFFIXES


def _by_stem(
    names: Iterable[str], folder: str, suffixes: Sequence[str]
) -> dict[str, str]:
    """Returns the files below a folder that have one of the suffixes.

    Keys are the names below the folder, without the suffix.
    """
    found = {}
    for name in sorted(names):
        path = pathlib.PurePosixPath(name)
        if name.startswith(folder) and path.suffix.lower() in suffixes:
            stem = name[len(folder) : -len(path.suffix)]
            if stem in found:
                raise UserError(
                    f"{found[stem]} and {name} have the same name but for the ending; "
                    "rename or remove one."
                )
            found[stem] = name
    return found


def _match(files: files_lib.Files, image_dir: str, mask_dir: str) -> list[builder.Item]:
    """Pairs the files of two folders by name, sorted by name."""
    image_files = _in_folder(files, image_dir, "image")
    mask_files = _in_folder(files, mask_dir, "mask")
    _refuse_unmatched("image", image_files, "mask", mask_files, mask_dir)
    _refuse_unmatched("mask", mask_files, "image", image_files, image_dir)
    return [
        builder.Item(name, image_files[name], mask_files[name])
        for name in sorted(image_files)
    ]


def _in_folder(files: files_lib.Files, folder: str, what: str) -> dict[str, str]:
    """Returns the images or masks directly in a folder, by stem."""
    # Listed by itself, since it may be absolute, or a link to some other place.
    names = files_lib.open_files(files.path / folder).names
    direct = [name for name in names if "/" not in name]
    found = _by_stem(direct, "", _suffixes(what))
    for name in found.values():
        # Python marks bytes that are no UTF-8 by what cannot be stored or printed.
        if (printable := name.encode("utf-8", "replace").decode()) != name:
            raise UserError(
                f"The name of the {what} {printable} in {files.path / folder} is not "
                "UTF-8; rename it."
            )
    if not found:
        raise UserError(
            f"{files.path / folder} has no {what} of type "
            f"{', '.join(_suffixes(what))}; put the {what}s directly into it."
        )
    return {stem: str(pathlib.PurePath(folder, name)) for stem, name in found.items()}


def _refuse_unmatched(
    what: str,
    found: dict[str, str],
    other: str,
    others: dict[str, str],
    other_dir: str,
) -> None:
    missing = sorted(found.keys() - others.keys())
    if missing:
        raise UserError(
            f"{len(missing)} of {len(found)} {what}s have no {other}, the first is "
            f"{found[missing[0]]}; put a {other} named {missing[0]} (of type "
            f"{', '.join(_suffixes(other))}) into {other_dir}, or remove the {what}."
        )


def _split_at_random(
    items: list[builder.Item], val_fraction: float, seed: int
) -> dict[str, list[builder.Item]]:
    """Splits into "train" and "val", each in the order given."""
    if not 0 < val_fraction < 1:
        raise UserError(
            f"The share of images that validate is {val_fraction}; it must be above 0 "
            "and below 1."
        )
    if len(items) < 2:
        raise UserError(
            f"There is {len(items)} image; at least 2 are needed, one to train and "
            "one to validate."
        )
    num_val = min(max(1, round(len(items) * val_fraction)), len(items) - 1)

    # The order of hashes: a new image moves hardly any other to the other split.
    def key(item: builder.Item) -> bytes:
        return hashlib.sha256(f"{seed}/{item.name}".encode()).digest()

    val = {item.name for item in sorted(items, key=key)[:num_val]}
    return {
        "train": [item for item in items if item.name not in val],
        "val": [item for item in items if item.name in val],
    }


def read_classes(files: files_lib.Files, where: str) -> tuple[str, ...]:
    """Returns the class names of a text file, by id; raises UserError."""
    path = files.path / where
    if where not in files.names:
        raise UserError(
            f"There is no {path}; write it: the name of a class on each line, the "
            "first for the mask value 0, the next for 1, and so on (255 is void and "
            "has none)."
        )
    names = tuple(line.strip() for line in _read_lines(files, where))
    if not 2 <= len(names) <= labels.IGNORE:
        raise UserError(
            f"{path} names {len(names)} classes; there must be 2 to {labels.IGNORE}."
        )
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            fault = f'has "{name}" again' if name else "is blank"
            raise UserError(
                f"Line {number + 1} of {path} {fault}; every line must be the name of "
                "another class."
            )
    return names


def _read_lines(files: files_lib.Files, where: str) -> list[str]:
    try:
        text = files.read(where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{files.path / where} is no text in UTF-8 ({error}); save it as such."
        ) from error
    return text.rstrip().splitlines()
