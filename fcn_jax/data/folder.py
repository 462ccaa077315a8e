"""A user's own images and masks, in one of three layouts.

PASCAL VOC's layout, with lists that make the splits::

    source/ImageSets/Segmentation/train.txt, val.txt, ...   (one name a line)
    source/JPEGImages/NAME.jpg
    source/SegmentationClass/NAME.png

Two parallel folders, split at random::

    source/images/NAME.jpg
    source/masks/NAME.png

The same with a mask for each class, of pixels that may have several, with or without
lists::

    source/images/NAME.jpg
    source/masks/CLASS/NAME.png

The names of the classes stand in ``source/classes.txt``, one a line from id 0 on, or in
a ``labelmap.txt`` of CVAT, which has the colours of the masks, too. Without either, the
masks are counted. Images may be of any type of `names.IMAGE_SUFFIXES`, masks of any of
`names.MASK_SUFFIXES`.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from fcn_jax.data import builder, classes, examples, images, names
from fcn_jax.data import files as files_lib
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.errors import UserError

IMAGE_SUFFIXES, MASK_SUFFIXES = names.IMAGE_SUFFIXES, names.MASK_SUFFIXES

_LISTS = "ImageSets/Segmentation/"


def scan(
    source: str,
    *,
    image_dir: str = "images",
    mask_dir: str = "masks",
    val_fraction: float = 0.2,
    split_seed: int = 0,
    label_map: str = "",
    intensity_range: Sequence[float] = (),
    multilabel: bool = False,
    missing_masks: str = "",
) -> builder.SegmentationConfig:
    """Lists the images and masks of a folder, or of a .tar file in VOC's layout.

    Args:
        source: The folder.
        image_dir: For parallel folders: the images', absolute or below the source.
        mask_dir: The masks', or that of the folders of each class.
        val_fraction: Without lists: the share of the images in "val".
        split_seed: Without lists: picks those.
        label_map: What the values of masks mean, see `label_map.parse`; "": class ids.
        intensity_range: See `images.read_image`.
        multilabel: Whether there is a mask for each class.
        missing_masks: Where a class has no mask: "absent", "void", or "" (refused).

    Raises:
        UserError: If something is missing, as its sentence says.
    """
    if not source:
        raise UserError(
            'The data set "folder" needs a source: give the folder of your images.'
        )
    images.check_intensity_range(intensity_range)
    if missing_masks and missing_masks not in examples.MISSING:
        raise UserError(
            f"data.missing_masks={missing_masks!r} is not known; use one of "
            f"{tuple(examples.MISSING)}, or '' to refuse them."
        )
    if missing_masks and not multilabel:
        raise UserError(
            f"data.missing_masks={missing_masks} is for task=multilabel; leave it out, "
            "or set the task."
        )
    files = files_lib.open_files(source)
    parsed = label_map_lib.parse(label_map, files.path) if label_map else None
    if parsed is not None and multilabel and parsed.num_classes > 2:
        raise UserError(
            f"data.label_map has {parsed.num_classes} classes; a mask of one class has "
            "0 (absent), 1 (present) and void, such as 0:0,128:void,255:1."
        )
    reading = examples.Reading(
        parsed, tuple(intensity_range), multilabel, missing_masks
    )
    if any(name.startswith(_LISTS) for name in files.names) and not multilabel:
        return scan_voc_layout(files, reading=reading)
    for name in (image_dir, mask_dir):
        if not (files.path / name).is_dir():
            raise UserError(
                f"{source} has neither lists {_LISTS}*.txt nor a folder {name}; "
                "arrange it in one of these ways, or say which folders have the images "
                "and the masks."
            )
    image_files = names.in_folder(files, image_dir, "image")
    if multilabel:
        class_names = classes.of_folders(files, mask_dir)
        masks = _masks_of_classes(
            files, image_files, mask_dir, class_names, missing_masks
        )
    else:
        class_names, reading = classes.of_masks(files, "", reading)
        mask_files = _match(files, image_files, image_dir, mask_dir)
        masks = {name: (file,) for name, file in mask_files.items()}
    splits = _splits(files, sorted(image_files), val_fraction, split_seed)
    items = {
        split: [builder.Item(name, image_files[name], masks[name]) for name in listed]
        for split, listed in splits.items()
    }
    return builder.make_config(files.path, files, items, class_names, reading=reading)


def scan_voc_layout(
    files: files_lib.Files,
    prefix: str = "",
    *,
    class_names: Sequence[str] | None = None,
    splits: Iterable[str] | None = None,
    reading: examples.Reading | None = None,
) -> builder.SegmentationConfig:
    """Lists the images and masks of PASCAL VOC's layout.

    Args:
        files: Has the files.
        prefix: The layout's folder among them, such as "VOCdevkit/VOC2012/"; "" if it
            is at the top.
        class_names: The classes; None: those of the folder.
        splits: The lists to use; None: all.
        reading: How masks are read; None: as class ids.

    Raises:
        UserError: If something is missing or listed twice, as its sentence says.
    """
    reading = reading or examples.Reading()
    if class_names is None:
        class_names, reading = classes.of_masks(files, prefix, reading)
    lists = prefix + _LISTS
    if splits is None:
        splits = _lists(files, lists)
    image_files = names.by_stem(files.names, prefix + "JPEGImages/", IMAGE_SUFFIXES)
    mask_files = names.by_stem(
        files.names, prefix + "SegmentationClass/", MASK_SUFFIXES
    )
    items = {}
    for split in splits:
        where = f"{lists}{split}.txt"
        items[split] = [
            builder.Item(
                name,
                _listed(name, where, prefix + "JPEGImages/", image_files),
                (_listed(name, where, prefix + "SegmentationClass/", mask_files),),
            )
            for name in names.read_list(files, where, image_files)
        ]
    return builder.make_config(
        files.path / prefix, files, items, class_names, reading=reading
    )


def links_out(config: builder.SegmentationConfig) -> list[str]:
    """Returns the files of a set that are links out of its folder, by name."""
    root = os.path.realpath(config.files.path)
    files = {
        file
        for items in config.splits.values()
        for item in items
        for file in (item.image, *item.masks)
    }
    return sorted(
        file
        for file in files
        # A folder that lies elsewhere was named by the user; a file was perhaps not.
        if os.path.islink(path := os.path.join(root, file))
        and not os.path.realpath(path).startswith(root + os.sep)
    )


def _lists(files: files_lib.Files, lists: str) -> list[str]:
    splits = sorted(
        name.removeprefix(lists).removesuffix(".txt")
        for name in files.names
        if name.startswith(lists) and name.endswith(".txt")
    )
    if not splits:
        raise UserError(
            f"{files.path / lists} has no list; put a train.txt and a val.txt there, "
            "with the name of an image, without its ending, on each line."
        )
    return splits


def _splits(
    files: files_lib.Files, found: Sequence[str], val_fraction: float, seed: int
) -> dict[str, list[str]]:
    """Returns the names of each split: those of the lists, or chosen at random."""
    if not any(name.startswith(_LISTS) for name in files.names):
        return names.split_at_random(found, val_fraction, seed)
    known, splits = set(found), {}
    for split in _lists(files, _LISTS):
        where = f"{_LISTS}{split}.txt"
        splits[split] = names.read_list(files, where, known)
        if missing := [name for name in splits[split] if name not in known]:
            raise UserError(
                f'The list {where} has "{names.printable(missing[0])}", but there is '
                "no image of this name; add it, or take the name, which must be "
                "without an ending, from the list."
            )
    return splits


def _listed(name: str, where: str, folder: str, found: Mapping[str, str]) -> str:
    if name not in found:
        what = "mask" if folder.endswith("SegmentationClass/") else "image"
        shown = names.printable(name)
        raise UserError(
            f'The list {where} has "{shown}", but there is no {what} {folder}{shown} '
            f"(of type {', '.join(names.suffixes(what))}); add the {what}, or take the "
            "name, which must be without an ending, from the list."
        )
    return found[name]


def _match(
    files: files_lib.Files,
    image_files: Mapping[str, str],
    image_dir: str,
    mask_dir: str,
) -> dict[str, str]:
    """Returns the mask of each image, by name."""
    hint = ", or set task=multilabel" if classes.folders(files, mask_dir) else ""
    mask_files = names.in_folder(files, mask_dir, "mask", hint)
    names.refuse_unmatched("image", image_files, "mask", mask_files, mask_dir)
    names.refuse_unmatched("mask", mask_files, "image", image_files, image_dir)
    return mask_files


def _masks_of_classes(
    files: files_lib.Files,
    image_files: Mapping[str, str],
    mask_dir: str,
    class_names: Sequence[str],
    missing_masks: str,
) -> dict[str, tuple[str, ...]]:
    """Returns the masks of each image, one a class, "" where there is none."""
    by_class = []
    for name in class_names:
        folder = str(pathlib.PurePath(mask_dir, name))
        found = names.in_folder(files, folder, "mask")
        names.refuse_unmatched("mask", found, "image", image_files, "the images")
        if not missing_masks:
            names.refuse_unmatched(
                "image", image_files, "mask", found, f"{folder}, set data.missing_masks"
            )
        by_class.append(found)
    return {
        name: tuple(found.get(name, "") for found in by_class) for name in image_files
    }
