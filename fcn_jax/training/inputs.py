"""From a config to its data set, and to what is done to its training images."""

from collections.abc import Collection

import jax
import ml_collections
import numpy as np

from fcn_jax import agreement, processes, sharding
from fcn_jax.data import datasets, labels, transforms


def load_dataset(
    config: ml_collections.ConfigDict, splits: Collection[str]
) -> datasets.Dataset:
    """The data set that a config names, with the splits that are wanted.

    The main process prepares it, if need be. The others then find it prepared, or where
    they have a disk of their own, prepare it there.

    Raises:
        UserError: as ``datasets.load``; or processes that have different data.
    """
    data = config.data
    dataset = agreement.main_first(
        lambda: datasets.load(
            data.name,
            source=data.source,
            data_dir=data.dir,
            image_dir=data.image_dir,
            mask_dir=data.mask_dir,
            val_fraction=data.val_fraction,
            split_seed=data.split_seed,
            splits=splits,
            sbd_source=data.sbd_source,
            label_map=data.label_map,
            intensity_range=tuple(data.intensity_range),
            multilabel=config.task == "multilabel",
            missing_masks=data.missing_masks,
        )
    )
    for note in dataset.notes:
        processes.say(note)
    facts = {"class names": dataset.class_names}
    for name, split in dataset.splits.items():
        facts[f"number of images of {name}"] = len(split.source)
        facts[f"pixels of each class of {name}"] = split.pixel_counts.tolist()
    agreement.require_same(facts, "give all of them the same data")
    return dataset


def find_classes(
    config: ml_collections.ConfigDict,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names and the palette of a config's data, without PASCAL VOC's files.

    Raises:
        UserError: as ``load_dataset``, for other data than PASCAL VOC.
    """
    if config.data.name == "voc":
        return labels.VOC_CLASSES, labels.voc_palette()
    dataset = load_dataset(config, (config.data.val_split,))
    return dataset.class_names, dataset.palette


def make_augment(
    config: ml_collections.ConfigDict,
    max_size: tuple[int, int],
    mesh: jax.sharding.Mesh | None = None,
    num_masks: int | None = None,
) -> transforms.Augment:
    """How the config changes training images.

    Args:
        config: where ``augment.crop`` is empty, images are not cropped.
        max_size: the largest height and width of the training images.
        num_masks: of each image, see ``transforms.decode``.
        mesh: where whole images go, whose rows it has to share evenly.

    Raises:
        UserError: sizes and scales that give no image.
    """
    augment, image_scale = config.augment, config.data.image_scale
    largest = max(augment.scale, default=1) * image_scale
    whole = transforms.scaled_size(max_size, largest)
    if mesh is not None:
        whole = sharding.canvas(mesh, whole)
    return transforms.Augment(
        crop=tuple(augment.crop) or whole,
        scale=tuple(augment.scale),
        image_scale=image_scale,
        flip=augment.flip,
        photometric=augment.photometric,
        num_masks=num_masks,
    )
