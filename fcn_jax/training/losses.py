"""Pixel losses, as sums and what they are divided by.

Every term is a sum over pixels or images, with a divisor that depends on the labels
alone. So the divisors of a whole batch are known before any of its parts is worked on,
and losses and gradients add up over micro-batches and devices; means do not.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fcn_jax.data import datasets
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import UserError

REDUCTIONS = ("mean", "sum")  # Of the gradient, see ``step.make_train_step``.
TERMS = ("cross_entropy", "focal", "dice", "ohem")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """A weighted sum of terms.

    ``cross_entropy``: weighted mean over the labelled pixels, as PyTorch's
        ``CrossEntropyLoss``; of a multilabel task, over (pixel, class) pairs, as
        ``BCEWithLogitsLoss`` with ``pos_weight``.
    ``focal``: the same, each pixel times ``(1 - p) ** focal_gamma``, where ``p`` is the
        probability given to the truth (Lin et al., ICCV 2017, eq. 4 and 5).
    ``dice``: one minus soft Dice of each class of each image, mean over both (Milletari
        et al., 3DV 2016), with 1 pixel added above and below the line; images without
        labels do not count.
    ``ohem``: mean cross-entropy of the ``ohem_fraction`` hardest labelled pixels of
        each image, unweighted (Shrivastava et al., CVPR 2016, for pixels).

    Attributes:
        multilabel: whether labels are [B,H,W,C] of 0, 1 and IGNORE, not [B,H,W] of
            class ids and IGNORE.
        weights: of the terms; those left out do not count.
        class_weights: float [C], of the pixels of each class, for a multilabel task of
            those where it is present; None: all 1. Of cross_entropy and focal.
        label_smoothing: share of cross_entropy's target spread evenly over the classes
            (over absent and present), in [0, 1).
        focal_gamma: 0 or more.
        ohem_fraction: above 0, to 1.
    """

    multilabel: bool = False
    weights: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"cross_entropy": 1.0}
    )
    class_weights: np.ndarray | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    ohem_fraction: float = 0.25

    def __post_init__(self):
        """Raises UserError for weights and numbers that make no loss."""
        used = [name for name in TERMS if self.weights.get(name, 0) != 0]
        if not used or not all(weight >= 0 for weight in self.weights.values()):
            raise UserError(
                f"The weights of the loss are {dict(self.weights)}; none may be "
                "negative, and one must be above 0: set loss.cross_entropy=1."
            )
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"loss.label_smoothing={self.label_smoothing} must be at least 0 and "
                "less than 1."
            )
        if not self.focal_gamma >= 0:
            raise UserError(f"loss.focal_gamma={self.focal_gamma} must be 0 or more.")
        if not 0 < self.ohem_fraction <= 1:
            raise UserError(
                f"loss.ohem_fraction={self.ohem_fraction} must be above 0, and at most "
                "1."
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that count."""
        return tuple(name for name in TERMS if self.weights.get(name, 0) > 0)

    def divisors(self, labels: jax.Array) -> dict[str, jax.Array]:
        """What the sums of each term are divided by: float32 scalars, not 0."""
        weight = jnp.sum(self._pixel_weights(labels))
        divisors = {
            "cross_entropy": weight,
            "focal": weight,
            "dice": jnp.sum(self._count(labels) > 0),
            "ohem": jnp.sum(self._hardest(labels)),
        }
        # Where nothing is labelled, the loss is 0.
        return {
            name: jnp.maximum(divisors[name].astype(jnp.float32), 1e-6)
            for name in self.terms
        }

    def sums(self, logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        """The sum of each term, scalars of float32 (of float64 logits, float64).

        Args:
            logits: [B,H,W,C].
            labels: int [B,H,W], or for a multilabel task [B,H,W,C].
        """
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        nll = self._negative_log_likelihood(logits, labels)
        weights = self._pixel_weights(labels)
        sums = {
            "cross_entropy": lambda: jnp.sum(
                self._smoothed(nll, logits, labels) * weights
            ),
            "focal": lambda: jnp.sum(self._modulated(nll) * weights),
            "dice": lambda: self._dice(logits, labels),
            "ohem": lambda: self._ohem(nll, labels),
        }
        return {name: sums[name]() for name in self.terms}

    def _pixel_weights(self, labels: jax.Array) -> jax.Array:
        labelled = (labels != IGNORE).astype(jnp.float32)
        if self.class_weights is None:
            return labelled
        class_weights = jnp.asarray(self.class_weights, jnp.float32)
        if self.multilabel:
            return labelled * jnp.where(labels == 1, class_weights, 1.0)
        return labelled * class_weights[self._target(labels)]

    def _target(self, labels: jax.Array) -> jax.Array:
        return jnp.where(labels == IGNORE, 0, labels).astype(jnp.int32)

    def _negative_log_likelihood(self, logits, labels) -> jax.Array:
        target = self._target(labels)
        if self.multilabel:
            return optax.sigmoid_binary_cross_entropy(logits, target)
        return optax.softmax_cross_entropy_with_integer_labels(logits, target)

    def _smoothed(self, nll, logits, labels) -> jax.Array:
        if not self.label_smoothing:
            return nll
        # The cross-entropy to the uniform distribution.
        if self.multilabel:
            uniform = optax.sigmoid_binary_cross_entropy(logits, 0.5)
        else:
            uniform = jax.nn.logsumexp(logits, -1) - jnp.mean(logits, -1)
        return (1 - self.label_smoothing) * nll + self.label_smoothing * uniform

    def _modulated(self, nll) -> jax.Array:
        # Not quite 0 where p is 1: a power below 1 has no finite slope there.
        missing = jnp.maximum(-jnp.expm1(-nll), 1e-6)
        return missing**self.focal_gamma * nll

    def _dice(self, logits, labels) -> jax.Array:
        target = self._target(labels)
        if self.multilabel:
            labelled = labels != IGNORE
            probabilities = jax.nn.sigmoid(logits)
        else:
            labelled = (labels != IGNORE)[..., None]
            probabilities = jax.nn.softmax(logits)
            target = jax.nn.one_hot(target, logits.shape[-1])
        both = jnp.sum(probabilities * target * labelled, (1, 2))  # [B,C]
        either = jnp.sum((probabilities + target) * labelled, (1, 2))
        dice = jnp.mean(1 - (2 * both + 1) / (either + 1), -1)
        return jnp.sum(jnp.where(self._count(labels) > 0, dice, 0))

    def _ohem(self, nll, labels) -> jax.Array:
        batch = labels.shape[0]
        nll = jnp.where(labels == IGNORE, -1.0, nll).reshape(batch, -1)
        hardest = self._hardest(labels)[:, None]
        ordered = jnp.sort(jax.lax.stop_gradient(nll), -1, descending=True)
        place = jnp.maximum(hardest - 1, 0)
        least = jnp.take_along_axis(ordered, place, -1)
        # Of pixels that are equally hard, as all are at first, each has a share.
        harder, equal = nll > least, nll == least
        share = (hardest - jnp.sum(harder, -1, keepdims=True)) / jnp.maximum(
            jnp.sum(equal, -1, keepdims=True), 1
        )
        kept = jnp.where(hardest > 0, harder + share * equal, 0)
        return jnp.sum(jax.lax.stop_gradient(kept) * nll)

    def _count(self, labels) -> jax.Array:
        """Labelled pixels (or pairs) of each image, int32 [B]."""
        return jnp.sum(labels.reshape(labels.shape[0], -1) != IGNORE, -1)

    def _hardest(self, labels) -> jax.Array:
        """How many pixels of each image ohem keeps, int32 [B]."""
        return jnp.ceil(self.ohem_fraction * self._count(labels)).astype(jnp.int32)


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
        setting: "" (none), "median_frequency", "root_median_frequency" (the square
            roots of those, between them and none), or numbers between commas, one a
            class.
        split: its masks were counted when it was prepared.
        num_classes: C.

    Raises:
        UserError: none of these, or numbers that are too many, too few or negative.
    """
    if not setting:
        return None
    if setting in ("median_frequency", "root_median_frequency"):
        weights = median_frequency_weights(split.pixel_counts, split.image_pixel_counts)
        return np.sqrt(weights) if setting.startswith("root") else weights
    try:
        weights = np.array([float(part) for part in setting.split(",")], np.float32)
    except ValueError:
        weights = np.zeros(0, np.float32)
    if len(weights) != num_classes or not (weights >= 0).all() or not weights.any():
        raise UserError(
            f"loss.class_weights={setting!r} must be '', 'median_frequency', "
            f"'root_median_frequency', or {num_classes} non-negative numbers with "
            "commas between, one a class."
        )
    return weights
