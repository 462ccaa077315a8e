import io

import cv2
import numpy as np
import pytest
from PIL import Image

from fcn_jax.data import datasets, labels, shapes


def scene(index):
    return shapes.draw_scene(np.random.default_rng((0, 0, index)))


def test_scenes_are_a_function_of_the_seed():
    for a, b in zip(scene(0), scene(0), strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = (shapes.scan(seed).files.read("train/0/image") for seed in (0, 1))
    assert one == shapes.scan(0).files.read("train/0/image")
    assert one != other
    assert shapes.scan(0).name == shapes.scan(0).name != shapes.scan(1).name


def test_sizes_and_ids():
    sizes, ids = set(), set()
    for index in range(60):
        image, mask = scene(index)
        assert image.shape == (*mask.shape, 3)
        assert image.dtype == mask.dtype == np.uint8
        sizes.add(mask.shape)
        ids |= set(np.unique(mask).tolist())
    assert all(96 <= side <= 144 for size in sizes for side in size)
    assert len(sizes) > 50
    assert ids == {*range(7), labels.IGNORE}


def test_void_lies_between_any_two_regions_and_nowhere_else():
    for index in range(10):
        mask = scene(index)[1].astype(int)
        pairs = [
            (mask[:, 1:], mask[:, :-1]),
            (mask[1:], mask[:-1]),
            (mask[1:, 1:], mask[:-1, :-1]),
            (mask[1:, :-1], mask[:-1, 1:]),
        ]
        for a, b in pairs:
            assert ((a == b) | (a == labels.IGNORE) | (b == labels.IGNORE)).all()
        # Thin: nothing of it is left when a pixel is taken off all around, but at
        # crossings.
        void = (mask == labels.IGNORE).astype(np.uint8)
        assert cv2.erode(void, np.ones((3, 3), np.uint8)).sum() < 0.05 * void.sum()
        assert 0 < void.mean() < 0.25


@pytest.mark.parametrize("form", shapes.CLASSES[1:])
def test_forms_have_their_area(form):
    radius, areas = 40, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        inside = shapes._draw(rng, form, radius, np.array([60, 60]), (120, 120))
        areas.append(inside.sum() / radius**2)
        ring = form == "ring"
        assert inside[60, 60] == (0 if ring else 1)
    wanted = {
        "circle": np.pi,
        "square": 2,
        "triangle": 3 * np.sqrt(3) / 4,
        "star": 10 * 0.45 * np.sin(np.pi / 5) / 2,
        "ring": np.pi * (1 - 0.55**2),
        "cross": 2 * 2 * 0.6 - 0.6**2,
    }[form]
    # Stretched by at most 10% along each axis; the outline's pixels belong to it.
    assert wanted * 0.8 < np.mean(areas) < wanted * 1.3


def test_the_mask_is_exact_where_the_image_shows_the_shape():
    # Flat colours: the region's pixels differ from the ground's by more than texture.
    for index in range(10):
        image, mask = scene(index)
        for c in np.unique(mask[mask != labels.IGNORE])[1:]:
            ground = image[mask == 0].mean(axis=0)
            assert np.abs(image[mask == c] - ground).mean() > 10


def test_load(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "_SIZES", {"train": 5, "val": 3})
    dataset = datasets.load("shapes", data_dir=str(tmp_path))
    assert dataset.class_names == shapes.CLASSES
    assert [len(split.source) for split in dataset.splits.values()] == [5, 3]
    record = dataset.split("train").source[2]
    assert record["name"] == "train_0002"
    image, mask = scene(2)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(record["image"]))), image
    )
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(record["mask"]))), mask
    )
