"""Folders to inspect, and what training makes of the command that is proposed."""

import numpy as np
from example_folders import save

from fcn_jax.data import datasets
from fcn_jax.inspection import inspect

NAMES = "abcdef"


def ids_of(name, num_classes=3):
    """Class ids [8, 10], the same at each call: class 0 above, then stripes."""
    ids = np.zeros((8, 10), np.uint8)
    for i in range(1, num_classes):
        ids[4:, i - 1 :: num_classes] = i
    return np.roll(ids, ord(name) - ord("a"), axis=1)


def image_of(name):
    rng = np.random.default_rng(ord(name))
    return rng.integers(0, 256, (8, 10, 3), np.uint8)


def make(folder, encode=lambda ids: ids, classes="", num_classes=3):
    """Two folders with six images, and masks written in some way."""
    for name in NAMES:
        save(folder / f"images/{name}.png", image_of(name))
        save(folder / f"masks/{name}.png", encode(ids_of(name, num_classes)))
    if classes:
        (folder / "classes.txt").write_text("\n".join(classes.split()))
    return folder


def look(folder, **kwargs):
    return inspect.inspect(str(folder), str(folder.parent / "out"), **kwargs)


def kinds(report):
    """The findings by kind: the names of all cases."""
    return {found.kind: found.names for found in report.findings.sorted()}


def load(report):
    """Prepares the data set as the proposed command does."""
    assert report.command[:3] == ["python", "run_train.py", "--config=configs/fcn8s.py"]
    flags = dict(word[len("--config.") :].split("=", 1) for word in report.command[3:])
    kwargs = {k[5:]: v for k, v in flags.items() if k.startswith("data.")}
    if ends := kwargs.pop("intensity_range", ""):
        kwargs["intensity_range"] = tuple(map(float, ends.split(",")))
    for name in ("train_split", "val_split"):
        kwargs.pop(name, None)
    multilabel = flags.get("task") == "multilabel"
    data_dir = report.output.parent / "prepared"
    return datasets.load(**kwargs, multilabel=multilabel, data_dir=str(data_dir))


def assert_trains(report):
    """Training must take the folder, and count what the inspection counted."""
    assert report.ok, kinds(report)
    dataset = load(report)
    assert dataset.class_names == tuple(report.meant.names)
    assert dataset.splits.keys() == report.splits.keys()
    for name, split in dataset.splits.items():
        ours = [row.pixels[name] for row in report.table.rows]
        np.testing.assert_array_equal(split.pixel_counts, ours)
        assert len(split.source) == report.table.num_images[name]
    return dataset
