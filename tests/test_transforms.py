"""Transforms against NumPy and Python loops, never against OpenCV."""

import colorsys
import math

import cv2
import numpy as np
import pytest

from fcn_jax import errors
from fcn_jax.data import transforms

SIZES = [
    (7, 7),
    (7, 14),
    (14, 7),
    (40, 13),
    (13, 40),
    (31, 29),
    (90, 97),
    (1, 6),
    (6, 1),
]


def png(array):
    if array.ndim == 3:
        array = array[..., ::-1]
    return cv2.imencode(".png", array)[1].tobytes()


def record(image, label):
    return {"image": png(image), "mask": png(label), "name": "made"}


def coordinates(height, width):
    """An image that shows three times each pixel's row (red) and column (green)."""
    rows, columns = 3 * np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1)


def noise(*shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(high, size=shape).astype(np.uint8)


def centre(i, n, m):
    """Where the centre of pixel i of m lies among n source pixels."""
    return (i + 0.5) * n / m - 0.5


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_label_pixel_is_the_source_pixel_under_its_centre(n, m):
    source = np.arange(n, dtype=np.uint8)
    label = np.repeat(source[None], n, 0) + 100 * (source[:, None] == n // 2)
    label = label.astype(np.uint8)
    image = np.zeros((n, n, 3), np.uint8)
    _, resized = transforms.resize(image, label, (m, m))
    candidates = []
    for i in range(m):
        at = centre(i, n, m)
        # Exactly between two pixels either is nearest.
        near = {math.floor(at + 0.5 - 1e-9), math.floor(at + 0.5 + 1e-9)}
        candidates.append([min(max(k, 0), n - 1) for k in near])
    for i in range(m):
        for j in range(m):
            values = {label[a, b] for a in candidates[i] for b in candidates[j]}
            assert resized[i, j] in values


@pytest.mark.parametrize(("n", "m"), [(7, 14), (13, 40), (40, 31), (10, 7), (1, 6)])
def test_image_is_interpolated_linearly(n, m):
    image = noise(n, n, 3)
    resized = transforms.resize_image(image, (m, m))
    for i in range(m):
        for j in range(m):
            y, x = (min(max(centre(k, n, m), 0), n - 1) for k in (i, j))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, n - 1), min(x0 + 1, n - 1)
            top = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
            want = top * (1 - y + y0) + bottom * (y - y0)
            np.testing.assert_allclose(resized[i, j], want, atol=1.01)


@pytest.mark.parametrize(("n", "m"), [(40, 13), (14, 7), (31, 2), (6, 1)])
def test_image_that_shrinks_much_is_averaged_by_area(n, m):
    image = noise(n, n, 3)
    weights = np.zeros((m, n))
    for i in range(m):
        low, high = i * n / m, (i + 1) * n / m
        for k in range(n):
            weights[i, k] = max(0, min(high, k + 1) - max(low, k)) * m / n
    want = np.einsum("ik,jl,klc->ijc", weights, weights, image)
    got = transforms.resize_image(image, (m, m))
    np.testing.assert_allclose(got, want, atol=1.01)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.8, 1.0, 1.7, 2.0])
def test_edges_of_image_and_label_coincide(scale):
    label = np.zeros((60, 70), np.uint8)
    cv2.ellipse(label, (33, 28), (25, 17), 30, 0, 360, 1, -1)
    image = np.repeat(label[..., None] * 255, 3, -1)
    size = transforms.scaled_size(label.shape, scale)
    image, resized = transforms.resize(image, label, size)
    sure = np.abs(image[..., 0].astype(int) - 127.5) > 64
    assert sure.mean() > 0.8
    np.testing.assert_array_equal((image[..., 0] > 127)[sure], resized[sure] == 1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("image_scale", [0.4, 1.0])
@pytest.mark.parametrize("shape", [(60, 80), (20, 80), (31, 23)])
def test_augmented_pixels_keep_their_labels_and_one_scale(shape, image_scale, axis):
    image = coordinates(*shape)
    label = image[..., axis] // 3
    augment = transforms.Augment(
        crop=(24, 32), image_scale=image_scale, photometric=False
    )
    rng = np.random.default_rng(1)
    shifts = []
    for _ in range(80):
        example = augment(record(image, label), rng)
        assert example["image"].shape == (24, 32, 3)
        assert example["label"].shape == (24, 32)
        height, width = example["size"]

        # The image shows where in the source each pixel's centre lies, to a third of a
        # pixel; the label shows the source pixel that holds it.
        at = example["image"][:height, :width, :2] / 3
        shift = example["label"][:height, :width] - at[..., axis]
        assert np.abs(shift).max() < 0.5 + 0.34
        shifts.append(shift.mean())

        # Source pixels for one of the example, along both axes.
        steps = np.abs(at[-2, -2] - at[1, 1]) / (height - 3, width - 3)
        if min(height, width) > 15:
            np.testing.assert_allclose(steps[0], steps[1], rtol=0.15)
            assert 0.45 * image_scale < 1 / steps[0] < 2.2 * image_scale
    assert abs(np.mean(shifts)) < 0.2


def test_what_the_image_does_not_fill_is_black_and_void():
    image = noise(20, 50, 3) // 2 + 128
    label = noise(20, 50, high=5)
    augment = transforms.Augment(crop=(32, 40), scale=(1, 1), flip=False)
    example = augment(record(image, label), np.random.default_rng(0))
    assert example["size"].dtype == np.int32
    np.testing.assert_array_equal(example["size"], [20, 40])
    np.testing.assert_array_equal(example["image"][20:], 0)
    np.testing.assert_array_equal(example["label"][20:], 255)
    assert (example["label"][:20] < 5).all()


def test_unscaled_crops_are_cut_from_everywhere_and_half_are_mirrored():
    image = coordinates(10, 12)
    label = noise(10, 12, high=255)
    augment = transforms.Augment(crop=(7, 8), scale=(1, 1), photometric=False)
    rng = np.random.default_rng(0)
    starts, mirrored = set(), 0
    for _ in range(400):
        example = augment(record(image, label), rng)
        y, x = example["image"][0, 0, :2].astype(int) // 3
        flipped = example["image"][0, 0, 1] > example["image"][0, 1, 1]
        mirrored += flipped
        x = x - 7 if flipped else x
        starts.add((y, x))
        step = -1 if flipped else 1
        np.testing.assert_array_equal(
            example["label"], label[y : y + 7, x : x + 8][:, ::step]
        )
        np.testing.assert_array_equal(
            example["image"], image[y : y + 7, x : x + 8][:, ::step]
        )
    assert starts == {(y, x) for y in range(4) for x in range(5)}
    assert 160 < mirrored < 240


def test_extent_of_a_whole_image_is_its_rounded_size():
    augment = transforms.Augment(crop=(500, 500), scale=(0.5, 2))
    one = record(noise(31, 17, 3), noise(31, 17, high=3))
    sizes = []
    for seed in range(300):
        scale = np.random.default_rng(seed).uniform(0.5, 2)
        example = augment(one, np.random.default_rng(seed))
        assert tuple(example["size"]) == (round(31 * scale), round(17 * scale))
        sizes.append(example["size"][0] / 31)
    assert min(sizes) < 0.55 and max(sizes) > 1.95
    assert abs(np.mean(sizes) - 1.25) < 0.08


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 2)])
def test_tiny_images_and_crops_work(shape):
    one = record(noise(*shape, 3), noise(*shape, high=3))
    for crop in [(1, 1), (3, 64)]:
        augment = transforms.Augment(crop=crop, image_scale=0.1)
        example = augment(one, np.random.default_rng(0))
        assert example["image"].shape == (*crop, 3)
        assert (example["size"] >= 1).all()
        assert set(np.unique(example["label"])) <= {0, 1, 2, 255}


def test_colours_change_as_colorsys_says():
    image = noise(6, 7, 3) // 2 + 64
    brightness, contrast, saturation, hue = 11.0, 1.2, 0.8, 0.3
    got = transforms.recolour(
        image, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
    )
    for pixel, out in zip(image.reshape(-1, 3), got.reshape(-1, 3), strict=True):
        y, i, q = colorsys.rgb_to_yiq(*(pixel / 255))
        turned = complex(i, q) * saturation * complex(math.cos(hue), math.sin(hue))
        rgb = np.array(colorsys.yiq_to_rgb(y, turned.real, turned.imag))
        want = contrast * (255 * rgb + brightness)
        np.testing.assert_allclose(out, np.clip(want, 0, 255), atol=1.01)


def test_greys_stay_grey_and_nothing_changes_nothing():
    image = noise(8, 8, 3)
    np.testing.assert_array_equal(transforms.recolour(image), image)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, -1)
    turned = transforms.recolour(greys, saturation=1.5, hue=0.3)
    np.testing.assert_allclose(turned, greys, atol=1)
    bright = transforms.recolour(greys, brightness=32, contrast=1.5)
    want = np.clip(1.5 * (greys.astype(float) + 32), 0, 255)
    np.testing.assert_allclose(bright, want, atol=1.01)


def test_random_colours_leave_labels_and_borders_alone():
    image, label = np.full((9, 9, 3), 120, np.uint8), noise(9, 9, high=3)
    augment = transforms.Augment(crop=(12, 12), scale=(1, 1), flip=False)
    values = set()
    for seed in range(200):
        example = augment(record(image, label), np.random.default_rng(seed))
        np.testing.assert_array_equal(example["label"][:9, :9], label)
        np.testing.assert_array_equal(example["image"][9:], 0)
        values.add(int(example["image"][0, 0, 0]))
    # Grey shows brightness and contrast alone: 120 - 32 to 120 + 32, times 0.5 to 1.5.
    assert 120 in values and min(values) >= 43 and max(values) <= 229
    assert min(values) < 65 and max(values) > 190


@pytest.mark.parametrize(
    "options",
    [
        {"crop": (0, 5)},
        {"crop": (5, 5), "scale": (0, 1)},
        {"crop": (5, 5), "scale": (2, 1)},
        {"crop": (5, 5), "image_scale": 0},
        {"crop": (5, 5), "image_scale": math.nan},
    ],
)
def test_impossible_augmentations_are_refused(options):
    with pytest.raises(errors.UserError, match="must be|give"):
        transforms.Augment(**options)


@pytest.mark.parametrize("image_scale", [0.5, 1.0, 1.5])
def test_evaluation_keeps_the_label_and_scales_the_image(image_scale):
    image, label = noise(21, 35, 3), noise(21, 35, high=4)
    example = transforms.evaluation_example(
        record(image, label),
        canvas=(64, 64),
        label_canvas=(30, 40),
        image_scale=image_scale,
    )
    np.testing.assert_array_equal(example["label"][:21, :35], label)
    np.testing.assert_array_equal(example["label"][21:], 255)
    np.testing.assert_array_equal(example["label"][:, 35:], 255)
    np.testing.assert_array_equal(example["label_size"], [21, 35])
    height, width = round(21 * image_scale), round(35 * image_scale)
    np.testing.assert_array_equal(example["size"], [height, width])
    assert example["image"][height:].sum() == example["image"][:, width:].sum() == 0
    want = transforms.resize_image(image, (height, width))
    np.testing.assert_array_equal(example["image"][:height, :width], want)
    if image_scale == 1:
        np.testing.assert_array_equal(want, image)


def test_an_image_scaled_to_nothing_keeps_one_pixel():
    assert transforms.scaled_size((3, 400), 0.01) == (1, 4)


def test_unlabelled_example_is_like_any_other():
    canvases = {"canvas": (9, 8), "label_canvas": (6, 7)}
    whole = record(noise(3, 4, 3), noise(3, 4, high=2))
    real = transforms.evaluation_example(whole, **canvases)
    empty = transforms.unlabelled_example(**canvases)
    assert real.keys() == empty.keys()
    for key in real:
        assert real[key].shape == empty[key].shape
        assert real[key].dtype == empty[key].dtype
    assert (empty["label"] == 255).all()
    assert (empty["size"] >= 1).all() and (empty["label_size"] >= 1).all()
