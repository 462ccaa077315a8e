"""What a report shows of single images, gathered while a split is scored."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from fcn_jax.data import transforms
from fcn_jax.data.labels import IGNORE
from fcn_jax.evaluation import boundary


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image that a report shows.

    Attributes:
        name: its name in the data set.
        mean_iou: over the classes that occur in its truth or prediction.
        ious: float64 [C], nan where undefined.
        image: RGB, uint8 [h,w,3].
        truth: uint8 [h,w] of ids, or [h,w,C] of 0 and 1; 255 is void.
        prediction: uint8, of the same shape.
    """

    name: str
    mean_iou: float
    ious: np.ndarray
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


class Collector:
    """Takes the images of a split one by one, see ``Evaluator``'s ``visit``.

    Args:
        num_classes: C.
        multilabel: whether masks are [h,w,C].
        keep: how many of the best images are kept, and of the worst.

    Attributes:
        boundaries: the scores at boundaries, of all images.
        mean_ious: the mean IoU of each image in which it is defined.
    """

    def __init__(self, num_classes: int, *, multilabel: bool = False, keep: int = 6):
        self._num_classes, self._multilabel, self._keep = num_classes, multilabel, keep
        self._kept = {}  # By (mean IoU, number); the record and the prediction.
        self.boundaries = boundary.Counter(num_classes)
        self.mean_ious: list[float] = []

    def visit(self, index: int, record: Mapping, prediction: np.ndarray) -> None:
        """Adds an image.

        Args:
            index: its number in the split.
            record: its record.
            prediction: uint8 [h,w], or [h,w,C].
        """
        truth = self._decode(record)["label"]
        self.boundaries.add(truth, prediction)
        ious = image_ious(truth, prediction, self._num_classes)
        if np.isnan(ious).all():  # Nothing is labelled, or nothing there and found.
            return
        mean = float(np.nanmean(ious))
        self.mean_ious.append(mean)
        self._kept[mean, index] = record, prediction
        if len(self._kept) > 2 * self._keep:
            del self._kept[sorted(self._kept)[self._keep]]

    def best(self) -> list[Shown]:
        """The best images, from the best on; none of them is among the worst."""
        order = sorted(self._kept, key=lambda key: (-key[0], key[1]))
        number = min(self._keep, math.ceil(len(order) / 2))
        return [self._show(key) for key in order[:number]]

    def worst(self) -> list[Shown]:
        """The worst images, from the worst on."""
        order = sorted(self._kept)
        number = min(self._keep, len(order) // 2)
        return [self._show(key) for key in order[:number]]

    def _decode(self, record: Mapping) -> dict[str, np.ndarray]:
        num_masks = self._num_classes if self._multilabel else None
        return transforms.decode(record, num_masks)

    def _show(self, key: tuple[float, int]) -> Shown:
        record, prediction = self._kept[key]
        decoded = self._decode(record)
        return Shown(
            name=record["name"],
            mean_iou=key[0],
            ious=image_ious(decoded["label"], prediction, self._num_classes),
            image=decoded["image"],
            truth=decoded["label"],
            prediction=prediction,
        )


def image_ious(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int
) -> np.ndarray:
    """The IoU of each class in one image.

    Args:
        truth: uint8 [h,w] of ids, or [h,w,C] of 0 and 1; 255 is void.
        prediction: uint8, of the same shape.
        num_classes: C.

    Returns:
        float64 [C]; nan where a class is in neither.
    """
    labelled = truth != IGNORE
    if truth.ndim == 3:
        present, found = (truth == 1), (prediction == 1) & labelled
        right = (present & found).sum((0, 1))
        union = (present | found).sum((0, 1))
    else:
        truth, prediction = truth[labelled], prediction[labelled]
        right, actual, predicted = (
            np.bincount(ids, minlength=num_classes)
            for ids in (truth[truth == prediction], truth, prediction)
        )
        union = actual + predicted - right
    return np.divide(right, union, out=np.full(num_classes, np.nan), where=union > 0)
