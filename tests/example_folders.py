"""Small data sets for tests, made by PIL and NumPy alone."""

import io
import pathlib

import numpy as np
from PIL import Image

from fcn_jax.data import datasets, transforms

SIZES = {"a": (7, 9), "b": (12, 5), "c": (6, 6), "d": (3, 11), "e": (8, 8)}
CLASSES = "ground\nhouse\ntree\n"


def save(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kwargs)


def pixels(name):
    """The image and the ids of a name, made anew at each call."""
    rng = np.random.default_rng(list(name.encode()))
    size = SIZES[name]
    ids = rng.choice([0, 0, 1, 255] if name == "c" else [0, 1, 2, 255], size)
    return rng.integers(0, 256, (*size, 3), np.uint8), ids.astype(np.uint8)


def make_voc(folder, train="a\nb\nc\n", val="d\ne\n"):
    for name in SIZES:
        image, ids = pixels(name)
        save(folder / f"JPEGImages/{name}.png", image)
        save(folder / f"SegmentationClass/{name}.png", ids)
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(train)
    (lists / "val.txt").write_text(val)
    (folder / "classes.txt").write_text(CLASSES)
    return folder


def make_parallel(folder, images="images", masks="masks"):
    for name in SIZES:
        image, ids = pixels(name)
        save(folder / images / f"{name}.png", image)
        save(folder / masks / f"{name}.png", ids)
    (folder / "classes.txt").write_text(CLASSES)
    return folder


def load(source, **kwargs):
    data_dir = pathlib.Path(source).parent / "prepared"
    return datasets.load("folder", source=str(source), data_dir=str(data_dir), **kwargs)


def published(source):
    return list((pathlib.Path(source).parent / "prepared").glob("**/*.json"))


def arrays(record):
    image, mask = (Image.open(io.BytesIO(record[k])) for k in ("image", "mask"))
    assert (image.mode, mask.mode) == ("RGB", "L")
    return np.asarray(image), np.asarray(mask)


def masks_of(dataset, num_masks=None):
    """The labels of all records, by name."""
    records = [r for split in dataset.splits.values() for r in split.source]
    return {r["name"]: transforms.decode(r, num_masks)["label"] for r in records}
