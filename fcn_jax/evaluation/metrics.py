"""Scores from one confusion matrix, or histogram, of the whole split.

Pixels are counted as integers until one division at the end; scores of single images
or batches are never averaged (fcn_facts section 1.5; Long et al. 2015, section 5).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.data.labels import IGNORE

BINS = 100  # Of a histogram: the hundredths of a probability.


def confusion(labels: jax.Array, predictions: jax.Array, num_classes: int) -> jax.Array:
    """Counts pixels, int32 [C,C]: row = true class, column = predicted class.

    Args:
        labels: integers, 0 .. C-1 or IGNORE (not counted).
        predictions: integers 0 .. C-1 of the same shape.
        num_classes: C.
    """
    labels = labels.astype(jnp.int32)
    cell = jnp.where(
        labels == IGNORE, num_classes**2, num_classes * labels + predictions
    )
    counts = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)
    return counts[:-1].reshape(num_classes, num_classes)


def scores(
    counts: np.ndarray, class_names: Sequence[str], *, num_images: int
) -> dict[str, object]:
    """The scores of the FCN papers, as fractions in 0-1.

    Args:
        counts: int64 [C,C], see ``confusion``.
        class_names: C names.
        num_images: images that the counts come from.

    Returns:
        ``pixel_accuracy``, ``mean_accuracy``, ``mean_iou``, ``frequency_weighted_iou``;
        ``iou_per_class``, ``accuracy_per_class`` (name -> fraction, or None where
        undefined: the class is neither labelled nor predicted, or not labelled) and
        ``pixels_per_class`` (name -> labelled pixels); ``num_images``, ``num_pixels``.
        Undefined classes do not enter the means; without labelled pixels all are None.
    """
    counts = np.asarray(counts, np.int64)
    right, labelled = np.diag(counts), counts.sum(1)
    union = labelled + counts.sum(0) - right
    total = labelled.sum()

    def ratio(a, b):
        return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)

    iou, accuracy = ratio(right, union), ratio(right, labelled)

    def number(x):
        return None if np.isnan(x) else float(x)

    def by_name(values):
        return {name: number(v) for name, v in zip(class_names, values, strict=True)}

    occurs = labelled > 0
    return {
        "pixel_accuracy": number(right.sum() / total) if total else None,
        "mean_accuracy": number(accuracy[occurs].mean()) if total else None,
        "mean_iou": number(iou[union > 0].mean()) if total else None,
        "frequency_weighted_iou": (
            number((labelled[occurs] * iou[occurs]).sum() / total) if total else None
        ),
        "iou_per_class": by_name(iou),
        "accuracy_per_class": by_name(accuracy),
        "pixels_per_class": {
            n: int(v) for n, v in zip(class_names, labelled, strict=True)
        },
        "num_images": int(num_images),
        "num_pixels": int(total),
    }


def hundredths(probabilities: jax.Array) -> jax.Array:
    """The whole hundredths in probabilities, int32, 99 for 1 itself."""
    # One function for counting and for deciding, so that rounding never tells apart
    # what is counted as present from what is predicted to be.
    whole = jnp.floor(BINS * probabilities.astype(jnp.float32)).astype(jnp.int32)
    return jnp.clip(whole, 0, BINS - 1)


def histogram(labels: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Counts pixels of each class by truth and probability.

    Args:
        labels: integers [...,C]: 0 (absent), 1 (present) or IGNORE (not counted).
        probabilities: [...,C].

    Returns:
        int32 [C,2,100]: class, truth, ``hundredths`` of the probability.
    """
    num_classes, labels = labels.shape[-1], labels.astype(jnp.int32)
    cell = (2 * jnp.arange(num_classes) + labels) * BINS + hundredths(probabilities)
    cell = jnp.where(labels == IGNORE, 2 * num_classes * BINS, cell)
    counts = jnp.bincount(cell.ravel(), length=2 * num_classes * BINS + 1)
    return counts[:-1].reshape(num_classes, 2, BINS)


def multilabel_scores(
    counts: np.ndarray,
    class_names: Sequence[str],
    thresholds: Sequence[int],
    *,
    num_images: int,
) -> dict[str, object]:
    """The scores of every class by itself, as fractions in 0-1.

    Args:
        counts: int64 [C,2,100], see ``histogram``.
        class_names: C names.
        thresholds: of each class, in hundredths, 1 to 99.
        num_images: images that the counts come from.

    Returns:
        ``pixel_accuracy``, the share of (pixel, class) pairs that are right;
        ``mean_iou`` and ``mean_dice`` over the classes; by name ``iou_per_class``,
        ``dice_per_class``, ``precision_per_class``, ``recall_per_class``,
        ``threshold_per_class``, ``best_threshold_per_class`` with its
        ``best_iou_per_class`` (the threshold that these very images prefer), and
        ``pixels_per_class`` (pixels where the class is present); ``num_images`` and
        ``num_pixels`` (of pairs). None where undefined: such classes do not enter the
        means.
    """
    counts = np.asarray(counts, np.int64)
    # At threshold t, what lies in the bins from t on is predicted to be present.
    absent, present = counts[:, :, ::-1].cumsum(-1)[:, :, ::-1].swapaxes(0, 1)
    total = counts.sum((0, 1, 2))
    labelled = present[:, 0]

    def ratio(a, b):
        return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)

    iou_at = ratio(present, labelled[:, None] + absent)  # [C, 100]
    place = np.arange(len(counts)), np.asarray(thresholds)
    right, wrong = present[place], absent[place]
    iou = iou_at[place]
    dice = ratio(2 * right, labelled + right + wrong)
    best = np.nan_to_num(iou_at[:, 1:], nan=-1).argmax(1) + 1

    def number(x):
        return None if np.isnan(x) else float(x)

    def by_name(values):
        return {name: number(v) for name, v in zip(class_names, values, strict=True)}

    def mean(values):
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if defined.size else None

    agreeing = (right + (absent[:, 0] - wrong)).sum()
    return {
        "pixel_accuracy": float(agreeing / total) if total else None,
        "mean_iou": mean(iou),
        "mean_dice": mean(dice),
        "iou_per_class": by_name(iou),
        "dice_per_class": by_name(dice),
        "precision_per_class": by_name(ratio(right, right + wrong)),
        "recall_per_class": by_name(ratio(right, labelled)),
        "threshold_per_class": by_name(np.asarray(thresholds) / BINS),
        "best_threshold_per_class": by_name(
            np.where(labelled > 0, best / BINS, np.nan)
        ),
        "best_iou_per_class": by_name(
            np.where(labelled > 0, iou_at[place[0], best], np.nan)
        ),
        "pixels_per_class": {
            n: int(v) for n, v in zip(class_names, labelled, strict=True)
        },
        "num_images": int(num_images),
        "num_pixels": int(total),
    }


def as_scalars(scores: dict[str, object]) -> dict[str, float]:
    """The fractions of ``scores`` by name, for curves; undefined ones are left out."""
    flat = {
        f"val/{name}": value
        for name, value in scores.items()
        if name.endswith(("accuracy", "iou", "dice"))
    }
    flat |= {f"val_iou/{name}": v for name, v in scores["iou_per_class"].items()}
    return {name: value for name, value in flat.items() if value is not None}
