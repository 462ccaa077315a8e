"""Tiles, scales and mirror images against the whole image and plain loops."""

import types

import cv2
import jax
import numpy as np
import pytest

from fcn_jax import sharding
from fcn_jax.data import transforms
from fcn_jax.errors import UserError
from fcn_jax.evaluation import tasks, tiles
from fcn_jax.evaluation.predictor import Predictor
from fcn_jax.models import fcn, receptive_field, upsampling

CLASSES = 3


class Logits(tasks.Semantic):
    """Shows the logits themselves where probabilities are asked for."""

    def probabilities(self, logits):
        return logits


def make_run(image_scale=1.0, task=None, **fields):
    model = fcn.create(
        CLASSES, width=1 / 64, score_init="lecun_normal", dtype="float32",
        **{"depth": 11, "mean": (120, 110, 100), "std": (60, 60, 60), **fields},
    )  # fmt: skip
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8)
    )
    rng = np.random.default_rng(0)

    def draw(path, x):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        # Biases that are not zero: a border of the reference's geometry has features.
        deviation = 0.1 if x.ndim == 1 else np.sqrt(2 / np.prod(x.shape[:-1]))
        return rng.normal(scale=deviation, size=x.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return types.SimpleNamespace(
        model=model,
        variables=variables,
        mesh=sharding.make_mesh(),
        task=task or Logits(CLASSES),
        config=types.SimpleNamespace(
            data=types.SimpleNamespace(image_scale=image_scale)
        ),
    )


def photo(height, width):
    rng = np.random.default_rng(height + width)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def reference(run, images, canvas):
    """The network's logits of each image, as training sees it."""
    padded = np.zeros((len(images), *canvas, 3), np.uint8)
    for place, image in zip(padded, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    sizes = np.array([image.shape[:2] for image in images])
    logits = np.asarray(jax.jit(run.model.apply)(run.variables, padded, sizes))
    return [x[:h, :w] for x, (h, w) in zip(logits, sizes, strict=True)]


def predict(run, image, **how):
    """Ids and what the task takes for probabilities."""
    predictor = Predictor(run, probabilities=np.float32, **how)
    (found,) = predictor.stream([predictor.prepare(image)])
    return found.ids, found.probabilities


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("size", "out_size"), [(7, 7), (7, 20), (9, 4), (1, 3)])
def test_positions_are_those_of_a_bilinear_resize(size, out_size, mirrored):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, size, 5, 2)).astype(np.float32)
    expected = upsampling.resize(
        x[:, :, ::-1] if mirrored else x,
        np.array([[size, 5]]), np.array([[out_size, 8]]), (out_size, 8),
    )  # fmt: skip
    if mirrored:
        expected = expected[:, :, ::-1]
    rows = tiles.positions(0, out_size, out_size, tiles.Side(size))
    columns = tiles.positions(0, 8, 8, tiles.Side(5, mirrored))
    if mirrored:
        # As the network sees it: x is what it says of the mirrored image.
        x, expected = x[:, :, ::-1], upsampling.resize(
            x, np.array([[size, 5]]), np.array([[out_size, 8]]), (out_size, 8)
        )  # fmt: skip
    found = upsampling.sample(
        x, *[tuple(a[None] for a in at) for at in (rows, columns)]
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("size", "out_size"), [(700, 700), (350, 700), (900, 700)])
def test_parts_cover_an_image_once_and_windows_hold_what_they_need(
    size, out_size, mirrored
):
    sides, reach = [tiles.Side(size, mirrored), tiles.Side(600)], (70, 80)
    parts = tiles.cut(out_size, sides, 224, reach)
    assert [p for start, stop in parts for p in range(start, stop)] == [*range(700)]
    assert len(parts) > 1
    for part in parts:
        for side in sides:
            first, stop = tiles.window(*part, out_size, side, reach)
            cells, fractions = tiles.positions(*part, out_size, side)
            assert first % 32 == 0 and stop - first <= 224
            assert first <= max(0, cells.min() - 70)
            last = (cells + (fractions > 0)).max()
            assert stop == min(side.size, last + 80 + 1)


@pytest.mark.parametrize(
    ("size", "fields", "batch_size"),
    [
        ((741, 600), {"stride": 32, "upsampling": "resize"}, 1),
        ((59, 700), {"stride": 16, "upsampling": "learned"}, 3),
        ((41, 650), {"stride": 32, "geometry": "caffe"}, 1),
        ((741, 83), {"stride": 8, "geometry": "caffe"}, 2),
        ((59, 700), {"stride": 8, "depth": 16, "batch_norm": True}, 1),
    ],
)
def test_logits_of_tiles_are_those_of_the_whole_image(size, fields, batch_size):
    run, image = make_run(**fields), photo(*size)
    (expected,) = reference(run, [image], size)
    smallest = tiles.smallest_tile(receptive_field.margin(run.model))
    ids, logits = predict(run, image, tile=smallest + 5, batch_size=batch_size)
    assert np.ptp(expected, (0, 1)).min() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (ids != np.argmax(expected, -1)).mean() < 1e-3


@pytest.mark.parametrize(
    "how", [{"max_side": 600}, {"scales": (0.5, 1.1), "flip": True}]
)
def test_tiles_of_resized_and_mirrored_images_change_nothing(how):
    run = make_run(image_scale=0.75, task=tasks.Semantic(CLASSES))
    image = photo(1001, 60)
    ids, whole = predict(run, image, **how)
    found, parts = predict(run, image, tile=512, **how)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert (ids != found).mean() < 1e-3


def test_a_smaller_margin_would_not_do(monkeypatch):
    run, image = make_run(stride=32), photo(741, 40)
    (expected,) = reference(run, [image], (741, 40))
    reach = [n - 64 for n in receptive_field.reach(run.model)]
    monkeypatch.setattr(receptive_field, "reach", lambda model: reach)
    _, logits = predict(run, image, tile=512)
    assert np.abs(logits - expected).max() > 1e-4


@pytest.mark.parametrize("task", [tasks.Semantic(CLASSES), tasks.make("multilabel", 3)])
def test_scales_and_mirror_images_are_averaged_as_by_a_loop(task):
    run = make_run(image_scale=1.25, task=task)
    image = photo(45, 70)
    total = np.zeros((45, 70, CLASSES))
    seen = []
    for scale in (0.5, 1.1):
        size = transforms.scaled_size((45, 70), 1.25 * scale)
        resized = transforms.resize_image(image, size)
        seen += [resized, resized[:, ::-1]]
    for i, logits in enumerate(reference(run, seen, (64, 128))):
        logits = jax.image.resize(
            logits, (45, 70, CLASSES), "bilinear", antialias=False
        )
        logits = np.asarray(logits[:, ::-1] if i % 2 else logits, np.float64)
        if task.multilabel:
            total += 1 / (1 + np.exp(-logits))
        else:
            e = np.exp(logits)
            total += e / e.sum(-1, keepdims=True)
    total /= 4
    ids, probabilities = predict(run, image, scales=(0.5, 1.1), flip=True)
    np.testing.assert_allclose(probabilities, total, atol=1e-5)
    expected = total >= 0.5 if task.multilabel else total.argmax(-1)
    assert (ids != expected).mean() < 1e-3


def test_images_of_many_sizes_in_one_stream_are_those_alone():
    run = make_run()
    images = [photo(h, w) for h, w in ((40, 50), (90, 70), (45, 60), (1, 1), (33, 90))]
    alone = reference(run, images, (96, 128))
    predictor = Predictor(run, probabilities=np.float32, batch_size=2)
    found = {
        p.tag: p for p in predictor.stream(map(predictor.prepare, images, range(5)))
    }
    assert len(found) == 5
    for i, logits in enumerate(alone):
        np.testing.assert_allclose(found[i].probabilities, logits, atol=1e-5)
        np.testing.assert_array_equal(found[i].ids, found[i].probabilities.argmax(-1))
    for i, ids in enumerate(predictor(images)):
        np.testing.assert_array_equal(ids, found[i].ids)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tile": 479}, "--tile=479 is too small.*up to 214.*224; use 480 or more"),
        ({"tile": -1}, "--tile=-1 must be 0 or more"),
        ({"batch_size": -1}, "--batch_size=-1"),
        ({"max_side": -5}, "--max_side=-5"),
        ({"scales": (1.0, 0.0)}, "--scales=1.0,0.0"),
        ({"scales": ()}, "--scales="),
        ({"scales": (float("nan"),)}, "--scales=nan"),
    ],
)
def test_values_that_make_no_sense_are_refused(how, message):
    with pytest.raises(UserError, match=message):
        Predictor(make_run(), **how)
