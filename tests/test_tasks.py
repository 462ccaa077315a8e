"""Multilabel predictions and scores against loops over pixels in NumPy."""

import jax
import numpy as np
import pytest

from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import UserError
from fcn_jax.evaluation import metrics, tasks

NAMES = ("crack", "rust", "moss")


def make_example(seed=0, shape=(2, 6, 7, 3)):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, IGNORE], shape, p=[0.6, 0.3, 0.1]).astype(np.uint8)
    labels[..., 2][labels[..., 2] == 1] = 0  # Moss never occurs.
    return labels, rng.normal(size=shape).astype(np.float32) * 2


def counted_by_a_loop(labels, logits, c, threshold):
    tp = fp = fn = tn = 0
    for y, z in zip(labels[..., c].ravel(), logits[..., c].ravel(), strict=True):
        predicted = 1 / (1 + np.exp(-float(z))) >= threshold
        if y != IGNORE:
            tp += predicted and y == 1
            fp += predicted and y == 0
            fn += not predicted and y == 1
            tn += not predicted and y == 0
    return tp, fp, fn, tn


def test_multilabel_scores_equal_a_loop():
    labels, logits = make_example()
    thresholds = (0.5, 0.3, 0.77)
    task = tasks.make("multilabel", 3, thresholds)
    counts = jax.jit(task.count)(labels, logits)
    assert (counts.dtype, counts.shape) == (np.int32, (3, 2, 100))
    scores = task.scores(np.asarray(counts, np.int64), NAMES, num_images=2)
    ious, dices, right, total = [], [], 0, 0
    for c, name in enumerate(NAMES):
        tp, fp, fn, tn = counted_by_a_loop(labels, logits, c, thresholds[c])
        ious.append(tp / (tp + fp + fn))
        dices.append(2 * tp / (2 * tp + fp + fn))
        right, total = right + tp + tn, total + tp + tn + fp + fn
        assert scores["iou_per_class"][name] == pytest.approx(ious[-1])
        assert scores["dice_per_class"][name] == pytest.approx(dices[-1])
        assert scores["precision_per_class"][name] == pytest.approx(tp / (tp + fp))
        recall = tp / (tp + fn) if tp + fn else None
        assert scores["recall_per_class"][name] == pytest.approx(recall)
        assert scores["threshold_per_class"][name] == thresholds[c]
        assert scores["pixels_per_class"][name] == tp + fn
    assert scores["mean_iou"] == pytest.approx(np.mean(ious))
    assert scores["mean_dice"] == pytest.approx(np.mean(dices))
    assert scores["pixel_accuracy"] == pytest.approx(right / total)
    assert (scores["num_images"], scores["num_pixels"]) == (2, total)
    for c, name in enumerate(NAMES[:2]):
        found = []
        for t in range(1, 100):
            tp, fp, fn, _ = counted_by_a_loop(labels, logits, c, t / 100)
            found.append(tp / (tp + fp + fn))
        assert scores["best_iou_per_class"][name] == pytest.approx(max(found))
        best = round(100 * scores["best_threshold_per_class"][name])
        assert found[best - 1] == max(found)
    assert scores["best_threshold_per_class"]["moss"] is None


def test_what_is_predicted_is_what_is_counted():
    labels, logits = make_example(1, (4, 40, 40, 3))
    logits[0, 0] = 0.0  # Right on a threshold.
    for thresholds in ((0.5,), (0.07, 0.29, 0.58)):
        task = tasks.make("multilabel", 3, thresholds)
        predicted = np.asarray(jax.jit(task.classify)(logits))
        assert (predicted.dtype, set(predicted.ravel())) == (np.uint8, {0, 1})
        scores = task.scores(task.count(labels, logits), NAMES, num_images=4)
        for c, name in enumerate(NAMES):
            known = labels[..., c] != IGNORE
            both = ((predicted[..., c] == 1) & (labels[..., c] == 1)).sum()
            either = ((predicted[..., c] == 1) & known) | (labels[..., c] == 1)
            iou = both / either.sum()
            assert scores["iou_per_class"][name] == pytest.approx(iou, abs=1e-12)


def test_probabilities_decide_as_logits_do():
    _, logits = make_example(2)
    for task in (tasks.make("semantic", 3), tasks.make("multilabel", 3, (0.3,))):
        probabilities = task.probabilities(logits)
        np.testing.assert_array_equal(
            task.from_probabilities(probabilities), task.classify(logits)
        )
    exact = 1 / (1 + np.exp(-logits.astype(float)))
    np.testing.assert_allclose(probabilities, exact, rtol=1e-5)


def test_a_probability_of_one_is_in_the_last_hundredth():
    found = metrics.hundredths(np.array([0.0, 0.5, 0.999, 1.0], np.float32))
    assert found.tolist() == [0, 50, 99, 99]


def test_without_labels_nothing_is_defined():
    task = tasks.make("multilabel", 2)
    scores = task.scores(np.zeros((2, 2, 100)), NAMES[:2], num_images=1)
    assert scores["mean_iou"] is None and scores["pixel_accuracy"] is None
    assert "val/mean_iou" not in metrics.as_scalars(scores)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("panoptic", 3), "task='panoptic' is not known"),
        (("multilabel", 3, (0.5, 0.5)), "one for each of the 3 classes"),
        (("multilabel", 3, (0.005,)), "in steps of 0.01"),
        (("multilabel", 3, (1.0,)), "from 0.01 to 0.99"),
        (("multilabel", 3, ()), "are 0"),
    ],
)
def test_a_task_that_cannot_be_is_named(args, message):
    with pytest.raises(UserError, match=message):
        tasks.make(*args)
