"""Scores against a transcription of the reference's score.py, pixel by pixel."""

import jax
import numpy as np
import pytest

from fcn_jax.data.labels import IGNORE
from fcn_jax.evaluation import metrics

NAMES = ("a", "b", "c", "d")


def counted_by_a_loop(labels, predictions, num_classes):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if label != IGNORE:
            counts[label, prediction] += 1
    return counts


def random_masks(seed, shape=(3, 7, 5)):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, IGNORE], shape).astype(np.uint8)
    return labels, rng.integers(0, 4, shape).astype(np.uint8)


def test_confusion_equals_a_loop():
    labels, predictions = random_masks(0)
    counts = jax.jit(metrics.confusion, static_argnums=2)(labels, predictions, 4)
    assert counts.dtype == np.int32
    np.testing.assert_array_equal(counts, counted_by_a_loop(labels, predictions, 4))


def test_many_pixels_are_counted_exactly():
    # Beyond 2**24, where float32 stops counting.
    labels = np.zeros((2**24 + 3,), np.uint8)
    counts = jax.jit(metrics.confusion, static_argnums=2)(labels, labels, 2)
    assert int(counts[0, 0]) == 2**24 + 3


def test_scores_equal_the_reference_formulas():
    labels, predictions = random_masks(1)
    hist = counted_by_a_loop(labels, predictions, 4).astype(float)
    scores = metrics.scores(hist.astype(np.int64), NAMES, num_images=3)
    # score.py: class d is never labelled, but predicted: IoU 0, no accuracy.
    iu = np.diag(hist) / (hist.sum(1) + hist.sum(0) - np.diag(hist))
    accuracy = np.diag(hist)[:3] / hist.sum(1)[:3]
    freq = hist.sum(1) / hist.sum()
    assert scores["pixel_accuracy"] == pytest.approx(np.diag(hist).sum() / hist.sum())
    assert scores["mean_accuracy"] == pytest.approx(accuracy.mean())
    assert scores["mean_iou"] == pytest.approx(iu.mean())
    assert scores["frequency_weighted_iou"] == pytest.approx(
        (freq[freq > 0] * iu[freq > 0]).sum()
    )
    assert scores["iou_per_class"] == pytest.approx(dict(zip(NAMES, iu, strict=True)))
    assert scores["accuracy_per_class"]["d"] is None
    assert scores["pixels_per_class"]["a"] == (labels == 0).sum()
    assert scores["num_images"] == 3
    assert scores["num_pixels"] == (labels != IGNORE).sum()


def test_a_class_that_nobody_saw_does_not_enter_the_mean():
    counts = np.diag([5, 7, 0]).astype(np.int64)
    scores = metrics.scores(counts, "xyz", num_images=1)
    assert scores["mean_iou"] == 1.0
    assert scores["iou_per_class"]["z"] is None


def test_no_labelled_pixel_gives_no_score():
    scores = metrics.scores(np.zeros((2, 2)), "xy", num_images=1)
    assert scores["mean_iou"] is None
    assert scores["num_pixels"] == 0
