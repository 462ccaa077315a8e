"""Folders with a mask for each class: pixels may be of several."""

import numpy as np
import pytest
from example_folders import SIZES, load, masks_of, pixels, published, save

from fcn_jax.data import datasets, images, transforms
from fcn_jax.errors import UserError

NAMES = ("crack", "moss", "rust")


def planes(name, num_masks=3):
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 2, (*SIZES[name], num_masks)).astype(np.uint8)


def make_multilabel(folder, high=255):
    for name in SIZES:
        save(folder / f"images/{name}.png", pixels(name)[0])
        for i, label in enumerate(NAMES):
            save(folder / f"masks/{label}/{name}.png", planes(name)[..., i] * high)
    return folder


@pytest.mark.parametrize("high", [1, 255])
def test_many_labels_are_read_and_counted(tmp_path, high):
    dataset = load(make_multilabel(tmp_path / "mine", high), multilabel=True)
    assert (dataset.class_names, dataset.num_masks) == (NAMES, 3)
    found = masks_of(dataset, 3)
    for name in SIZES:
        np.testing.assert_array_equal(found[name], planes(name))
    counts = sum(split.pixel_counts for split in dataset.splits.values())
    np.testing.assert_array_equal(counts, sum(planes(n).sum((0, 1)) for n in SIZES))
    labelled = sum(split.num_labelled for split in dataset.splits.values())
    assert labelled == sum(planes(n).size for n in SIZES)


def test_lists_and_the_order_of_classes_count_for_many_labels(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    (folder / "classes.txt").write_text("rust\ncrack\nmoss\n")
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nc\n")
    (lists / "val.txt").write_text("e\n")
    dataset = load(folder, multilabel=True)
    assert dataset.class_names == ("rust", "crack", "moss")
    assert [len(s.source) for s in dataset.splits.values()] == [2, 1]
    np.testing.assert_array_equal(
        masks_of(dataset, 3)["e"], planes("e")[..., [2, 0, 1]]
    )


@pytest.mark.parametrize(("setting", "value"), [("absent", 0), ("void", 255)])
def test_a_missing_mask_is_what_was_said(tmp_path, setting, value):
    folder = make_multilabel(tmp_path / "mine")
    (folder / "masks/moss/b.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 images.*b\.png.*missing_masks"):
        load(folder, multilabel=True)
    dataset = load(folder, multilabel=True, missing_masks=setting)
    mask = masks_of(dataset, 3)["b"]
    np.testing.assert_array_equal(mask[..., 1], value)
    np.testing.assert_array_equal(mask[..., 0], planes("b")[..., 0])
    void = planes("b")[..., 1].size if setting == "void" else 0
    labelled = sum(split.num_labelled for split in dataset.splits.values())
    assert labelled == sum(planes(n).size for n in SIZES) - void


@pytest.mark.parametrize(
    ("values", "text", "words"),
    [
        ((0, 7), "", "values 0, 7.*data.label_map"),
        ((0, 1, 255), "", "values 0, 1, 255"),
        ((0, 128, 255), "0:0,255:1", "value 128"),
        ((0, 128, 255), "0:0,128:2,255:1", "has 3 classes"),
    ],
)
def test_a_mask_of_other_values_is_not_guessed(tmp_path, values, text, words):
    folder = make_multilabel(tmp_path / "mine")
    mask = np.resize(np.array(values, np.uint8), SIZES["c"])
    save(folder / "masks/rust/c.png", mask)
    with pytest.raises(UserError, match=words):
        load(folder, multilabel=True, label_map=text)
    assert not published(folder)


def test_a_stated_void_counts_for_nothing(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    mask = np.resize(np.array([0, 128, 255], np.uint8), SIZES["c"])
    save(folder / "masks/rust/c.png", mask)
    dataset = load(folder, multilabel=True, label_map="0:0,128:void,255:1")
    found = masks_of(dataset, 3)["c"][..., 2]
    np.testing.assert_array_equal(found, np.array([0, 255, 1])[mask // 127])


@pytest.mark.parametrize("num_masks", [1, 2, 5, 30, 254])
def test_many_masks_are_cropped_and_turned_like_one(num_masks):
    rng = np.random.default_rng(0)
    one = rng.choice([0, 1, 255], (23, 31)).astype(np.uint8)
    image = rng.integers(0, 256, (23, 31, 3), np.uint8)
    encoded = images.encode_png(image)
    single = {"image": encoded, "mask": images.encode_png(one), "name": "x"}
    many = single | {"mask": images.encode_png(np.tile(one, (num_masks, 1)))}
    for seed in range(4):
        kwargs = {"crop": (16, 40), "scale": (0.7, 1.6)}
        expected = transforms.Augment(**kwargs)(single, np.random.default_rng(seed))
        found = transforms.Augment(**kwargs, num_masks=num_masks)(
            many, np.random.default_rng(seed)
        )
        np.testing.assert_array_equal(found["image"], expected["image"])
        assert found["label"].shape == (16, 40, num_masks)
        for i in range(num_masks):
            np.testing.assert_array_equal(found["label"][..., i], expected["label"])


def test_many_labels_are_for_folders_alone(tmp_path):
    with pytest.raises(UserError, match="task=multilabel is for data.name=folder"):
        datasets.load("shapes", data_dir=str(tmp_path), multilabel=True)


def test_masks_below_each_other_have_room(tmp_path):
    folder = tmp_path / "mine"
    for name in "ab":
        save(folder / f"images/{name}.png", np.zeros((400_000, 1), np.uint8))
        for label in NAMES:
            save(folder / f"masks/{label}/{name}.png", np.zeros((400_000, 1), np.uint8))
    with pytest.raises(UserError, match=r"1x400000 pixels with 3 mask.*1,000,000"):
        load(folder, multilabel=True)
    assert not published(folder)


def test_settings_of_the_other_task_are_named(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    with pytest.raises(UserError, match="no mask of type .* or set task=multilabel"):
        load(folder)
    with pytest.raises(UserError, match="missing_masks=void is for task=multilabel"):
        load(folder, missing_masks="void")
    for label in NAMES:
        (folder / f"masks/{label}").rename(folder / label)
    with pytest.raises(UserError, match="masks has no folders.*task=semantic"):
        load(folder, multilabel=True)


def test_folders_that_cannot_be_classes_are_named(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    (folder / "classes.txt").write_text("crack\nmoss\n")
    with pytest.raises(UserError, match=r"names crack, moss, but .* crack, moss, rust"):
        load(folder, multilabel=True)
    (folder / "classes.txt").unlink()
    (folder / "masks/moss").rename(folder / "masks/mo\x1bss")
    with pytest.raises(UserError, match=r"Folder 2 .*cannot be printed .'mo.x1bss'"):
        load(folder, multilabel=True)


def test_one_class_is_enough(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    for label in NAMES[:2]:
        (folder / f"masks/{label}").rename(folder / label)
    dataset = load(folder, multilabel=True)
    assert (dataset.class_names, dataset.num_masks) == (("rust",), 1)
    np.testing.assert_array_equal(masks_of(dataset, 1)["a"], planes("a")[..., 2:])
    assert tuple(dataset.palette[0]) == (128, 0, 0)  # PASCAL VOC's first colour.
