"""What is asked of every pixel: one class of all, or each class by itself.

A task turns logits into predictions, and counts them into scores; the network, which
gives a logit for each class, is the same.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.errors import UserError
from fcn_jax.evaluation import metrics


@dataclasses.dataclass(frozen=True)
class Semantic:
    """One class a pixel: the most probable one.

    Attributes:
        num_classes: C.
    """

    num_classes: int
    multilabel = False

    def classify(self, logits: jax.Array) -> jax.Array:
        """[...,C] -> class ids, uint8 [...]."""
        return logits.argmax(-1).astype("uint8")

    from_probabilities = classify

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """[...,C] -> float32 [...,C], which sum to 1."""
        return jax.nn.softmax(logits.astype(jnp.float32))

    def count(self, labels: jax.Array, logits: jax.Array) -> jax.Array:
        """[...] and [...,C] -> ``metrics.confusion``, int32 [C,C]."""
        return metrics.confusion(labels, self.classify(logits), self.num_classes)

    def scores(
        self, counts: np.ndarray, class_names: Sequence[str], *, num_images: int
    ) -> dict[str, object]:
        """See ``metrics.scores``."""
        return metrics.scores(counts, class_names, num_images=num_images)


@dataclasses.dataclass(frozen=True)
class Multilabel:
    """Any number of classes a pixel: those whose probability reaches a threshold.

    Attributes:
        num_classes: C.
        thresholds: one a class, in hundredths.
    """

    num_classes: int
    thresholds: tuple[int, ...]
    multilabel = True

    def classify(self, logits: jax.Array) -> jax.Array:
        """[...,C] -> uint8 [...,C], 1 where a class is present."""
        return self.from_probabilities(self.probabilities(logits))

    def from_probabilities(self, probabilities: jax.Array) -> jax.Array:
        """[...,C] -> uint8 [...,C], 1 where a class is present."""
        hundredths = metrics.hundredths(probabilities)
        return (hundredths >= jnp.asarray(self.thresholds)).astype("uint8")

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """[...,C] -> float32 [...,C], each by itself."""
        return jax.nn.sigmoid(logits.astype(jnp.float32))

    def count(self, labels: jax.Array, logits: jax.Array) -> jax.Array:
        """Both [...,C] -> ``metrics.histogram``, int32 [C,2,100]."""
        return metrics.histogram(labels, self.probabilities(logits))

    def scores(
        self, counts: np.ndarray, class_names: Sequence[str], *, num_images: int
    ) -> dict[str, object]:
        """See ``metrics.multilabel_scores``."""
        return metrics.multilabel_scores(
            counts, class_names, self.thresholds, num_images=num_images
        )


TASKS = {"semantic": Semantic, "multilabel": Multilabel}
Task = Semantic | Multilabel


def make(name: str, num_classes: int, thresholds: Sequence[float] = (0.5,)) -> Task:
    """Returns the task that a config names.

    Args:
        name: a key of ``TASKS``.
        num_classes: C.
        thresholds: for ``multilabel``, one probability for all classes or one each,
            0.01 to 0.99 in steps of 0.01.

    Raises:
        UserError: no such task, or thresholds that are too many, too few or no such
            probabilities.
    """
    if name not in TASKS:
        raise UserError(f"task={name!r} is not known; use one of {tuple(TASKS)}.")
    if name == "semantic":
        return Semantic(num_classes)
    thresholds = tuple(thresholds)
    numbers = [_hundredths(t) for t in thresholds]
    if None in numbers:
        raise UserError(
            f"thresholds={thresholds} must be probabilities from 0.01 to 0.99, in "
            "steps of 0.01."
        )
    if len(numbers) not in (1, num_classes):
        raise UserError(
            f"thresholds={thresholds} are {len(numbers)}; give one for all, or one for "
            f"each of the {num_classes} classes."
        )
    if len(numbers) == 1:
        numbers *= num_classes
    return Multilabel(num_classes, tuple(numbers))


def _hundredths(threshold: float) -> int | None:
    """0.01 .. 0.99 -> 1 .. 99; None for anything else."""
    if not isinstance(threshold, int | float) or not 0 < threshold < 1:
        return None
    number = round(100 * threshold)
    return (
        number if 1 <= number <= 99 and abs(100 * threshold - number) < 1e-6 else None
    )
