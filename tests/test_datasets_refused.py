import os
import pathlib
import resource

import example_folders
import numpy as np
import pytest
from example_folders import load, save

from fcn_jax.data import datasets
from fcn_jax.errors import UserError


def assert_refused(source, *words, **kwargs):
    with pytest.raises(UserError) as error:
        load(source, **kwargs)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    left = (pathlib.Path(source).parent / "prepared").glob("**/*")
    assert [p for p in left if p.is_file() and p.suffix != ".lock"] == []


def test_refuses_a_source_that_is_none(tmp_path):
    assert_refused(tmp_path / "none", "none", "does not exist")
    with pytest.raises(UserError, match="source"):
        datasets.load("folder", data_dir=str(tmp_path))
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "ImageSets/Segmentation", "images")


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def grey(name, *size, value=0):
    return lambda folder: save(folder / name, np.full(size, value, np.uint8))


def truncate(name):
    def change(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


TRAIN = "ImageSets/Segmentation/train.txt"
MASK = "SegmentationClass/b.png"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("JPEGImages/b.png"), ["train.txt", "image JPEGImages/b"]),
        (remove(MASK), ["train.txt", "mask SegmentationClass/b"]),
        (write("classes.txt", b"ground\n\ntree"), ["Line 2", "blank"]),
        (write("classes.txt", b"ground\ntree\ntree\n"), ["Line 3", '"tree" again']),
        (write("classes.txt", b"ground\n"), ["1 classes", "2 to 255"]),
        (write("classes.txt", b"ground\n\xff\xff"), ["classes.txt", "UTF-8"]),
        (write(TRAIN, b"\n \n"), [TRAIN, "no image"]),
        (write(TRAIN, b"a\nb\na\n"), [TRAIN, '"a" twice']),
        (write(TRAIN, b"a\n../a\n"), [TRAIN, '"../a"', "leads out"]),
        (write(TRAIN, b"/etc/a\n"), [TRAIN, '"/etc/a"', "leads out"]),
        (write(TRAIN, b"a.png\n"), [TRAIN, '"a.png"', "without an ending"]),
        (write("ImageSets/Segmentation/all.txt", b"a\n"), ['"all"', "letters"]),
        (write("JPEGImages/b.jpg", b""), ["b.jpg", "b.png", "same name"]),
        (grey(MASK, 5, 12), [MASK, "12x5", "JPEGImages/b.png", "5x12"]),
        (grey(MASK, 12, 5, value=3), [MASK, "value 3", "3 classes", "0 to 2", "255"]),
        (grey(MASK, 12, 5, value=254), [MASK, "value 254"]),
        (write("JPEGImages/b.png", b"no image"), ["JPEGImages/b.png"]),
        (truncate("JPEGImages/b.png"), ["JPEGImages/b.png"]),
        (truncate(MASK), [MASK]),
    ],
    ids=range(19),
)
def test_bad_voc_layout_is_refused_and_nothing_published(voc, change, words):
    change(voc)
    assert_refused(voc, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("masks/c.png"), ["1 of 5 images", "images/c.png", "masks"]),
        (remove("images/c.png"), ["1 of 5 masks", "masks/c.png", "images"]),
        (grey("masks/a.png", 7, 9, value=9), ["masks/a.png", "value 9"]),
    ],
    ids=range(3),
)
def test_bad_parallel_folders_are_refused(parallel, change, words):
    change(parallel)
    assert_refused(parallel, *words)


def test_bad_options_of_parallel_folders_are_refused(parallel):
    assert_refused(parallel, "1.0", "below 1", val_fraction=1.0)
    assert_refused(parallel, "nor a folder labels", mask_dir="labels")
    (parallel / "empty").mkdir()
    assert_refused(parallel, "empty", "no mask", ".png", mask_dir="empty")


def test_name_that_is_no_utf8_is_refused(parallel):
    for folder in (b"images", b"masks"):
        path = os.fsencode(parallel) + b"/" + folder
        os.rename(path + b"/a.png", path + b"/m\xfc.png")
    assert_refused(parallel, r"m\udcfc.png", "not UTF-8")


def test_full_disk_is_told_and_nothing_left(voc):
    # A limit on the size of a file stands for a disk that is full.
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    save(voc / "JPEGImages/b.png", noise)
    save(voc / "SegmentationClass/b.png", np.zeros((300, 300), np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert_refused(voc, "prepared", "cannot be written", "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_unwritable_data_dir(voc):
    (voc.parent / "prepared").write_text("")
    with pytest.raises(UserError, match="prepared"):
        load(voc)


def test_a_split_of_void_alone(voc):
    for name in "de":  # The validation images.
        path = voc / f"SegmentationClass/{name}.png"
        save(path, np.full_like(example_folders.pixels(name)[1], 255))
    dataset = load(voc)
    assert dataset.split("train").pixel_counts.any()
    with pytest.raises(UserError, match='split "val".* has no labelled pixel'):
        dataset.split("val")
