"""How good the masks are at the boundaries between classes.

Two measures: the IoU of the pixels near true boundaries (Kohli, Ladicky & Torr, IJCV
2009; Kraehenbuehl & Koltun, NIPS 2011), and the F1 of the predicted boundaries
themselves (Csurka, Larlus & Perronnin, BMVC 2013).

A boundary pixel is one with a neighbour, of its four, of another class; both sides of
a boundary have them. The edge of the image is no boundary, and neither is that to
void. But data sets such as PASCAL VOC outline objects with a few pixels of void, so
each pixel of void that is narrower than `OUTLINE` first takes the nearest label: then
two classes meet in the middle of an outline. Wider void stays what it is.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fcn_jax.data.labels import IGNORE

OUTLINE = 16  # Pixels.
WIDTHS = (1, 2, 4, 8, 16, 32)  # Pixels.
TOLERANCE = 0.0075  # Of the image's diagonal, as in the paper.


def fill_outlines(ids: np.ndarray) -> np.ndarray:
    """Gives void that is narrower than `OUTLINE` the nearest label.

    Args:
        ids: uint8 [h,w], 255 is void.

    Returns:
        uint8 [h,w]. Distances are those of OpenCV's 5x5 mask, exact to 2 %.
    """
    void = ids == IGNORE
    if not void.any() or void.all():
        return ids
    distance, nearest = cv2.distanceTransformWithLabels(
        void.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV numbers the labelled pixels; each lies in its own cell.
    of_number = np.empty(nearest.max() + 1, np.uint8)
    of_number[nearest[~void]] = ids[~void]
    # Wide is what a disc of half the width covers without leaving the void.
    wide = distances(distance > OUTLINE / 2) <= OUTLINE / 2
    return np.where(void & ~wide, of_number[nearest], ids)


def boundaries(ids: np.ndarray) -> np.ndarray:
    """Marks the boundary pixels of all classes, uint8 [h,w] -> bool [h,w]."""
    marked = np.zeros(ids.shape, bool)
    labelled = ids != IGNORE
    for one, other in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differ = (ids[one] != ids[other]) & labelled[one] & labelled[other]
        marked[one] |= differ
        marked[other] |= differ
    return marked


def distances(marked: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest marked one, float32; inf if there is none.

    Args:
        marked: bool [h,w].
    """
    if not marked.any():
        return np.full(marked.shape, np.inf, np.float32)
    unmarked = (~marked).astype(np.uint8)
    return cv2.distanceTransform(unmarked, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def count_bands(
    truth: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    widths: Sequence[int] = WIDTHS,
) -> np.ndarray:
    """Counts labelled pixels near the true boundaries.

    A band of width d has d pixels on either side of a boundary.

    Args:
        truth: class ids, uint8 [h,w], 255 is void.
        prediction: class ids, uint8 [h,w].
        num_classes: C.
        widths: of the bands, in pixels, ascending.

    Returns:
        int64 [D,3,C]: by band and class, pixels that are right, that are labelled so,
        and that are predicted so.
    """
    away = distances(boundaries(fill_outlines(truth)))
    near = (away < widths[-1]) & (truth != IGNORE)
    band = np.searchsorted(widths, away[near], side="right")
    truth, prediction = truth[near], prediction[near]

    def count(band, ids):
        cells = np.bincount(
            band * num_classes + ids, minlength=len(widths) * num_classes
        )
        return cells.reshape(len(widths), num_classes)

    right = truth == prediction
    counts = [
        count(band[right], truth[right]),
        count(band, truth),
        count(band, prediction),
    ]
    return np.stack(counts, axis=1).cumsum(0)


def f1(
    truth: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """F1 of the boundary pixels of each class in one image.

    Precision is the share of the predicted boundary pixels of a class that are no
    farther from a true one of it than the tolerance; recall the other way round. Where
    the truth is void, and no outline, there are no boundary pixels.

    Args:
        truth: class ids, uint8 [h,w], 255 is void.
        prediction: class ids, uint8 [h,w].
        num_classes: C.
        tolerance: as a share of the image's diagonal.

    Returns:
        float64 [C]; nan where a class has boundaries in neither.
    """
    truth = fill_outlines(truth)
    prediction = np.where(truth == IGNORE, IGNORE, prediction)
    true, predicted = boundaries(truth), boundaries(prediction)
    limit = tolerance * np.hypot(*truth.shape)
    found = np.full(num_classes, np.nan)
    for i in set(truth[true].tolist()) | set(prediction[predicted].tolist()):
        ours, theirs = predicted & (prediction == i), true & (truth == i)
        if not ours.any() or not theirs.any():
            found[i] = 0
            continue
        box = _box(ours | theirs)  # Holds all that is looked at.
        ours, theirs = ours[box], theirs[box]
        precision = (distances(theirs)[ours] <= limit).mean()
        recall = (distances(ours)[theirs] <= limit).mean()
        both = precision + recall
        found[i] = 2 * precision * recall / both if both else 0
    return found


def _box(marked: np.ndarray) -> tuple[slice, slice]:
    """The smallest box around the marked pixels, of which there are some."""
    rows, columns = (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@dataclasses.dataclass
class Counter:
    """Adds up the images of a split.

    Where a pixel may be of several classes, each is measured by itself, as one of two:
    its bands are those around its own boundaries.

    Attributes:
        num_classes: C.
        bands: int64 [D,3,C], see `count_bands`.
        f1_sums: float64 [C], of `f1` over the images in which it is defined.
        f1_images: int64 [C], their number.
    """

    num_classes: int
    bands: np.ndarray = dataclasses.field(init=False)
    f1_sums: np.ndarray = dataclasses.field(init=False)
    f1_images: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self):
        self.bands = np.zeros((len(WIDTHS), 3, self.num_classes), np.int64)
        self.f1_sums = np.zeros(self.num_classes)
        self.f1_images = np.zeros(self.num_classes, np.int64)

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Adds an image: both uint8 [h,w] of ids, or [h,w,C] of 0 and 1; 255 void."""
        if truth.ndim == 2:
            self.bands += count_bands(truth, prediction, self.num_classes)
            values = f1(truth, prediction, self.num_classes)
        else:
            values = np.empty(self.num_classes)
            for i in range(self.num_classes):
                one = np.ascontiguousarray(truth[..., i]), prediction[..., i]
                self.bands[..., i] += count_bands(*one, 2)[..., 1]
                values[i] = f1(*one, 2)[1]
        defined = ~np.isnan(values)
        self.f1_sums[defined] += values[defined]
        self.f1_images += defined

    def scores(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The scores of all images, as fractions in 0-1; None where undefined.

        Args:
            class_names: C names.

        Returns:
            ``boundary_f1``, the mean over the classes of ``boundary_f1_per_class``,
            each the mean over the images in which the class has boundaries, in truth
            or prediction; ``trimap_iou``, by the width of the band, the mean IoU of
            the pixels in it over the classes that occur there.
        """
        f1s = _divide(self.f1_sums, self.f1_images)
        right, labelled, predicted = self.bands.swapaxes(0, 1)
        ious = _divide(right, labelled + predicted - right)
        return {
            "boundary_f1": _mean(f1s),
            "boundary_f1_per_class": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(class_names, f1s, strict=True)
            },
            "trimap_iou": {
                str(width): _mean(values)
                for width, values in zip(WIDTHS, ious, strict=True)
            },
        }


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
