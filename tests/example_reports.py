"""What a report is made of, without a network: a few invented images."""

import io

import numpy as np
from PIL import Image

from fcn_jax.data import labels
from fcn_jax.evaluation import collector, metrics
from fcn_jax.reporting import report_content

NAMES = ("sky", "<img src=x onerror=alert(1)>", "car 10", "car 9", "absent")
HOSTILE = 'a "b" <script>alert(2)</script>\nc'


def record(name, image, label):
    """As the data have it; of several classes a pixel the masks lie in one column."""
    if label.ndim == 3:
        label = label.transpose(2, 0, 1).reshape(-1, label.shape[1])
    made = {"name": name}
    for key, array in (("image", image), ("mask", label)):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        made[key] = buffer.getvalue()
    return made


def pair(seed, classes=4, shape=(24, 32), multilabel=False):
    """Truth with void, and a prediction that is wrong in some places."""
    rng = np.random.default_rng(seed)
    if multilabel:
        both = [pair((seed, i), 2, shape) for i in range(classes)]
        return tuple(np.stack(masks, -1) for masks in zip(*both, strict=True))
    truth = rng.integers(classes, size=(4, 4)).repeat(shape[0] // 4, 0)
    truth = truth.repeat(shape[1] // 4, 1)
    # The share of wrong pixels is another one in each image.
    wrong = rng.random(truth.shape) < rng.random() / 2
    prediction = np.where(wrong, rng.integers(classes, size=truth.shape), truth)
    truth[:2] = labels.IGNORE
    return truth.astype(np.uint8), prediction.astype(np.uint8)


def count(truth, prediction, num_classes):
    """Counts by the functions that the evaluation uses."""
    if truth.ndim == 3:
        return np.array(metrics.histogram(truth, 0.2 + 0.6 * prediction), np.int64)
    return np.array(metrics.confusion(truth, prediction, num_classes), np.int64)


def make(names=NAMES, images=5, multilabel=False, shape=(24, 32), **changes):
    """A report's content."""
    number, used = len(names), len(names) if multilabel else len(names) - 1
    collected = collector.Collector(number, multilabel=multilabel, keep=2)
    rng, counts = np.random.default_rng(0), 0
    for i in range(images):
        truth, prediction = pair(i, used, shape, multilabel)
        image = rng.integers(256, size=(*shape, 3)).astype(np.uint8)
        name = HOSTILE if i == 0 else f"image {i}"
        collected.visit(i, record(name, image, truth), prediction)
        counts = counts + count(truth, prediction, number)
    if multilabel:
        thresholds = [50] * number
        scores = metrics.multilabel_scores(counts, names, thresholds, num_images=images)
    else:
        scores = metrics.scores(counts, names, num_images=images)
    fields = {
        "title": "runs & more",
        "split": "val",
        "checkpoint": "40",
        "class_names": names,
        "palette": labels.voc_palette(),
        "scores": scores | collected.boundaries.scores(names),
        "counts": counts,
        "mean_ious": collected.mean_ious,
        "best": collected.best(),
        "worst": collected.worst(),
        "metrics": [
            {"step": 10 * i, "train/loss": 1 / (i + 1), "train/learning_rate": 0.1}
            | ({"val/mean_iou": i / 10} if i % 2 else {})
            for i in range(5)
        ],
        "config": {"data.source": "</td><script>alert(3)</script>", "seed": 0},
        "provenance": {"Command": "run_eval.py '--workdir=<b>&'"},
    }
    return report_content.Content(**(fields | changes))
