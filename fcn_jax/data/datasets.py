"""The one door to all data sets: `load`."""

import dataclasses
import difflib
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from fcn_jax.data import builder, folder, prepared, shapes, voc
from fcn_jax.errors import UserError

NAMES = ("voc", "folder", "shapes")
_DARK = 64  # If no value of any image is above, most of the range is not used.

# The parts of VOC 2012 that each split of "voc" has images of; seg11valid is in val.
_IMAGES_OF = {
    "train": {"train"},
    "val": {"rest of val", "seg11valid"},
    "trainval": {"train", "rest of val", "seg11valid"},
    "seg11valid": {"seg11valid"},
    "sbd_train": {"train", "rest of val"},
    "trainaug": {"train"},
}


@dataclasses.dataclass(frozen=True)
class Split:
    """The records of a split and what was counted when it was prepared.

    Attributes:
        source: Records {"image": JPEG or PNG bytes, "mask": PNG bytes, "name": str}.
        max_size: The largest height and the largest width, not always of one image.
        pixel_counts: int64 [C], the labelled pixels of each class.
        image_pixel_counts: int64 [C], the labelled pixels, of any class, of the images
            that contain the class. Of a multilabel set, those labelled for the class.
        num_labelled: The labelled pixels, of a multilabel set those of each class.
        mean: float64 [3], of all pixels of the images, RGB, 0 to 255.
        std: float64 [3], likewise.
    """

    source: Sequence[dict]
    max_size: tuple[int, int]
    pixel_counts: np.ndarray
    image_pixel_counts: np.ndarray
    num_labelled: int
    mean: np.ndarray
    std: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        name: "voc", "folder" or "shapes".
        class_names: The classes, by id.
        palette: uint8 [256, 3], the RGB colour of each id.
        splits: By name.
        multilabel: Whether a pixel may be of several classes, each with its own mask.
        duplicates: (split, name, split, name) of image files that two splits share; see
            `examples.shared_images` for how many.
        notes: What is to be said of the set before it is used.
    """

    name: str
    class_names: tuple[str, ...]
    palette: np.ndarray
    splits: dict[str, Split]
    multilabel: bool = False
    duplicates: tuple[tuple[str, str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_masks(self) -> int | None:
        """How many masks an image has, None where it is one of class ids."""
        return len(self.class_names) if self.multilabel else None

    def split(self, name: str) -> Split:
        """Returns a split to train on or to score.

        Raises:
            UserError: If there is none of this name, or it has no labelled pixel.
        """
        if name not in self.splits:
            raise UserError(
                f'The data set "{self.name}" has no split "{name}"; choose one of '
                f"{', '.join(self.splits)}."
            )
        split = self.splits[name]
        if not split.pixel_counts.any():
            raise UserError(
                f'The split "{name}" of the data set "{self.name}" has no labelled '
                "pixel, only void (255); label some, or choose another split."
            )
        return split


def load(
    name: str,
    *,
    source: str = "",
    data_dir: str,
    image_dir: str = "images",
    mask_dir: str = "masks",
    val_fraction: float = 0.2,
    split_seed: int = 0,
    splits: Collection[str] | None = None,
    sbd_source: str = "",
    label_map: str = "",
    intensity_range: Sequence[float] = (),
    multilabel: bool = False,
    missing_masks: str = "",
) -> Dataset:
    """Opens a data set, after preparing it if it is not yet, or has changed.

    Args:
        name: "voc" (PASCAL VOC 2012), "folder" (your own) or "shapes" (generated).
        source: For "voc" a folder or .tar file that has it, empty to download it; for
            "folder" the folder.
        data_dir: Prepared sets and downloads lie below it.
        image_dir: For "folder" without lists of splits: the folder of the images,
            absolute or below the source.
        mask_dir: The same for the masks.
        val_fraction: For the same: the share of the images that validate.
        split_seed: For the same: picks those.
        splits: The names of the splits that are wanted. For "voc" of `voc.COUNTS`, None
            for those of VOC 2012 alone; only what they need is looked for. For "folder"
            it is noted if they share images.
        sbd_source: For "voc" and its splits "sbd_train" and "trainaug": a folder or
            archive of SBD, empty to download it.
        label_map: For "folder": what the values of masks mean, see `label_map.parse`.
        intensity_range: For "folder": see `images.read_image`.
        multilabel: For "folder": whether there is a mask for each class.
        missing_masks: For the same: see `examples.Reading`.

    Raises:
        UserError: If there is no such data set, or its files are missing or bad.
    """
    _require_folder(
        name,
        {
            "task=multilabel": multilabel,
            "data.label_map": label_map,
            "data.intensity_range": tuple(intensity_range),
            "data.missing_masks": missing_masks,
        },
    )
    if name == "voc":
        return _load_voc(source, sbd_source, data_dir, splits or voc.SPLITS)
    if name == "folder":
        config = folder.scan(
            source,
            image_dir=image_dir,
            mask_dir=mask_dir,
            val_fraction=val_fraction,
            split_seed=split_seed,
            label_map=label_map,
            intensity_range=intensity_range,
            multilabel=multilabel,
            missing_masks=missing_masks,
        )
        path = prepared.prepare(config, data_dir)
        notes = _notes(config, prepared.read_metadata(path), splits or ())
        return dataclasses.replace(_open(name, path), notes=notes)
    elif name == "shapes":
        config = shapes.scan()
    else:
        nearest = sorted(
            NAMES, key=lambda n: -difflib.SequenceMatcher(None, n, name).ratio()
        )
        raise UserError(
            f'There is no data set "{name}"; choose one of {", ".join(nearest)}.'
        )
    return _open(name, prepared.prepare(config, data_dir))


def _require_folder(name: str, settings: Mapping[str, object]) -> None:
    """Raises UserError for a setting that only people's own folders have."""
    given = [setting for setting, value in settings.items() if value]
    if given and name != "folder":
        raise UserError(
            f'{given[0]} is for data.name=folder, but data.name is "{name}"; leave it '
            "out, or choose your own folder."
        )


def _notes(
    config: builder.SegmentationConfig, metadata: Mapping, wanted: Collection[str]
) -> tuple[str, ...]:
    """What may be a mistake, and is used all the same."""
    notes = []
    if links := folder.links_out(config):
        notes.append(
            f"Note: {len(links)} file(s) are links that lead out of "
            f"{config.files.path}, the first is {links[0]}."
        )
    for shared in metadata["shared"]:
        (a, b), (of_a, of_b) = shared["splits"], shared["names"][0]
        # Other lists may share images on purpose, as those of single classes do.
        if {a, b} == {"train", "val"} or {a, b} <= set(wanted):
            notes.append(
                f"Note: {shared['count']} image(s) of {b} are the same as in {a}, the "
                f"first is {of_b} ({of_a} in {a}), so a score of one after training on "
                "the other is too good."
            )
    brightest = max(split["brightest"] for split in metadata["splits"].values())
    if brightest < _DARK and not config.reading.intensity_range:
        notes.append(
            f"Note: the images are nearly black, their brightest value is {brightest} "
            "of 255; if the files have more than 8 bits, say in data.intensity_range "
            "which values become 0 and 255 (run_inspect.py proposes them)."
        )
    return tuple(notes)


def require_no_leak(trained_on: Iterable[str], scored: str) -> str:
    """Returns a warning, or "", about images that are both trained on and scored.

    Args:
        trained_on: The data sets and splits that were or will be trained on, such as
            "voc/sbd_train".
        scored: The data set and split to score.

    Raises:
        UserError: If the score would pass for what it is not: of "voc", SBD's training
            images are among those of "val".
    """
    warning, (name, split) = "", scored.rsplit("/", 1)
    for other, train_split in (one.rsplit("/", 1) for one in trained_on):
        if not name == other == "voc":
            continue
        if train_split == "sbd_train" and split in ("val", "trainval"):
            raise UserError(
                f"The split {split} cannot be scored after training on sbd_train: "
                "SBD's training images include many of VOC 2012's val, so the score "
                "would be of images trained on; use the split seg11valid, or train on "
                "trainaug."
            )
        shared = _IMAGES_OF.get(train_split, set()) & _IMAGES_OF.get(split, set())
        if shared or train_split == split:
            warning = (
                f"Note: images of {split} are among those of {train_split}, so its "
                "scores do not tell how new images fare."
            )
    return warning


def _load_voc(
    source: str, sbd_source: str, data_dir: str, splits: Collection[str]
) -> Dataset:
    for split in splits:
        if split not in voc.COUNTS:
            raise UserError(
                f'The data set "voc" has no split "{split}"; choose one of '
                f"{', '.join(voc.COUNTS)}."
            )
    parts = []
    for part in dict.fromkeys(map(voc.part_of, splits)):
        # What was downloaded has a known checksum; the download itself may be gone.
        downloaded = not (sbd_source if part == "sbd_train" else source)
        downloaded &= not (part == "trainaug" and sbd_source)
        path = prepared.find(part, data_dir) if downloaded else None
        if path is None:
            config = voc.scan(part, source, sbd_source, prepared.local(data_dir))
            if downloaded:
                config.name = part
            path = prepared.prepare(config, data_dir)
        parts.append(_open("voc", path))
    merged = {name: split for part in parts for name, split in part.splits.items()}
    # VOC's lists, and SBD's, share images, and `require_no_leak` knows which.
    return dataclasses.replace(parts[0], splits=merged, duplicates=())


def _open(name: str, path: pathlib.Path) -> Dataset:
    metadata = prepared.read_metadata(path)
    return Dataset(
        name=name,
        class_names=tuple(metadata["class_names"]),
        palette=np.array(metadata["palette"], np.uint8),
        splits={
            split: Split(
                source=prepared.Source(path, split),
                max_size=tuple(counted["max_size"]),
                pixel_counts=np.array(counted["pixel_counts"], np.int64),
                image_pixel_counts=np.array(counted["image_pixel_counts"], np.int64),
                num_labelled=counted["num_labelled"],
                mean=np.array(counted["mean"]),
                std=np.array(counted["std"]),
            )
            for split, counted in metadata["splits"].items()
        },
        multilabel=metadata["multilabel"],
        duplicates=tuple(
            (shared["splits"][0], one, shared["splits"][1], other)
            for shared in metadata["shared"]
            for one, other in shared["names"]
        ),
    )
