"""Scores from one confusion matrix of the whole split.

Pixels are counted as integers until one division at the end; scores of single images
or batches are never averaged (fcn_facts section 1.5; Long et al. 2015, section 5).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.data.labels import IGNORE


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


def as_scalars(scores: dict[str, object]) -> dict[str, float]:
    """The fractions of ``scores`` by name, for curves; undefined ones are left out."""
    flat = {
        f"val/{name}": value
        for name, value in scores.items()
        if name.endswith(("accuracy", "iou"))
    }
    flat |= {f"val_iou/{name}": v for name, v in scores["iou_per_class"].items()}
    return {name: value for name, value in flat.items() if value is not None}
