"""Pixel losses, as sums with their weights: a mean is one division at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fcn_jax.data import datasets
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import UserError

REDUCTIONS = ("mean", "sum")  # Of the gradient, see ``step.make_train_step``.


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy summed over the labelled pixels, and the sum of their weights.

    Their quotient is the (weighted) mean, as in PyTorch's ``CrossEntropyLoss``; a sum
    and a count add up over micro-batches and devices, means do not.

    Args:
        logits: [...,C].
        labels: int [...]: 0 .. C-1, or IGNORE for pixels that do not count.
        class_weights: [C], None: all 1.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).

    Returns:
        Two float32 scalars.
    """
    logits = logits.astype(jnp.float32)
    labelled = labels != IGNORE
    safe = jnp.where(labelled, labels, 0).astype(jnp.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, safe)
    if label_smoothing:
        # The cross-entropy to the uniform distribution.
        uniform = jax.nn.logsumexp(logits, -1) - jnp.mean(logits, -1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    weights = labelled.astype(jnp.float32)
    if class_weights is not None:
        weights *= jnp.asarray(class_weights, jnp.float32)[safe]
    return jnp.sum(loss * weights), jnp.sum(weights)


def median_frequency_weights(
    pixel_counts: np.ndarray, image_pixel_counts: np.ndarray
) -> np.ndarray:
    """Class weights median(f) / f (Eigen & Fergus, ICCV 2015, section 6.2).

    Args:
        pixel_counts: int [C], labelled pixels of each class in the training masks.
        image_pixel_counts: int [C], labelled pixels of the masks that hold the class.

    Returns:
        float32 [C]; classes that never occur get weight 1.
    """
    occurs = pixel_counts > 0
    frequency = pixel_counts / np.maximum(image_pixel_counts, 1)
    weights = np.median(frequency[occurs]) / np.where(occurs, frequency, 1)
    return np.where(occurs, weights, 1).astype(np.float32)


def resolve_class_weights(
    setting: str, split: datasets.Split, num_classes: int
) -> np.ndarray | None:
    """The config's ``loss.class_weights`` as float32 [C], None where it is empty.

    Args:
        setting: "" (none), "median_frequency", or numbers between commas, one a class.
        split: its masks were counted when it was prepared.
        num_classes: C.

    Raises:
        UserError: none of these, or numbers that are too many, too few or negative.
    """
    if not setting:
        return None
    if setting == "median_frequency":
        return median_frequency_weights(split.pixel_counts, split.image_pixel_counts)
    try:
        weights = np.array([float(part) for part in setting.split(",")], np.float32)
    except ValueError:
        weights = np.zeros(0, np.float32)
    if len(weights) != num_classes or not (weights >= 0).all() or not weights.any():
        raise UserError(
            f"loss.class_weights={setting!r} must be '', 'median_frequency', or "
            f"{num_classes} non-negative numbers with commas between, one a class."
        )
    return weights
