"""One image with its mask: read, checked, counted and stored."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from fcn_jax.data import images, labels
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.errors import UserError

MISSING = {"absent": 0, "void": labels.IGNORE}
MOST_SHARED = 100  # Images of two splits that are named.


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the files of a data set become arrays.

    Attributes:
        label_map: What the values of masks mean; None: class ids, and of multilabel
            masks 0 absent, 1 or 255 present.
        intensity_range: See `images.read_image`.
        multilabel: Whether there is a mask for each class.
        missing_masks: Of a multilabel set, what an image is where a class has no mask:
            a key of `MISSING`.
    """

    label_map: label_map_lib.LabelMap | None = None
    intensity_range: tuple[float, ...] = ()
    multilabel: bool = False
    missing_masks: str = ""

    def __str__(self) -> str:
        """All that the arrays depend on."""
        map_, ends = self.label_map or "ids", tuple(self.intensity_range)
        return f"{map_};{ends};{self.multilabel};{self.missing_masks}"

    def read(
        self,
        image_name: str,
        image_file: bytes,
        mask_names: Sequence[str],
        mask_files: Sequence[bytes | None],
        class_names: Sequence[str],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the image, uint8 [h, w, 3], and labels, uint8 [h, w] or [h, w, C].

        Args:
            image_name: For messages.
            image_file: Its bytes.
            mask_names: For messages.
            mask_files: Their bytes; None where a class has no mask.
            class_names: By id; empty if they are not known yet.

        Raises:
            UserError: If a file is bad, or they do not belong together.
        """
        image = images.read_image(
            image_file, image_name, intensity_range=self.intensity_range
        )
        _require_room(image, image_name, len(mask_names))
        masks = []
        for name, file in zip(mask_names, mask_files, strict=True):
            if file is None:
                fill = MISSING[self.missing_masks]
                masks.append(np.full(image.shape[:2], fill, np.uint8))
                continue
            mask = images.read_mask(file, name, self.label_map)
            if image.shape[:2] != mask.shape:
                raise UserError(
                    f"The mask {name} is {_size(mask)} pixels but its image "
                    f"{image_name} is {_size(image)}; they must be equal. Make the "
                    "mask anew, or resize it without interpolation."
                )
            if self.multilabel:
                masks.append(_binary(mask, name, self.label_map))
            else:
                _require_classes(mask, name, len(class_names))
                masks.append(mask)
        return image, np.stack(masks, -1) if self.multilabel else masks[0]

    def example(
        self, name: str, image_file: bytes, image: np.ndarray, ids: np.ndarray
    ) -> dict:
        """Returns the record to store."""
        if self.multilabel:  # The masks of all classes below each other.
            ids = ids.transpose(2, 0, 1).reshape(-1, ids.shape[1])
        # A JPEG is stored as it is: to encode it again would cost quality or space.
        plain = images.is_plain_rgb_jpeg(image_file)
        return {
            "image": io.BytesIO(image_file if plain else images.encode_png(image)),
            "mask": io.BytesIO(images.encode_png(np.ascontiguousarray(ids))),
            "name": name,
        }


def _require_room(image: np.ndarray, name: str, num_masks: int) -> None:
    """Raises UserError if the masks, below each other, are too large to be stored."""
    height, width = image.shape[0] * num_masks, image.shape[1]
    if (
        max(height, width) > images.PNG_MAX_SIDE
        or height * width > images.PNG_MAX_PIXELS
    ):
        raise UserError(
            f"{name} is {_size(image)} pixels with {num_masks} mask(s); rows times "
            f"masks may be {images.PNG_MAX_SIDE:,}, columns as many, and their product "
            f"{images.PNG_MAX_PIXELS:,}. Cut the image into parts."
        )


def _require_classes(ids: np.ndarray, name: str, num_classes: int) -> None:
    """Raises UserError for an id that is no class, if the classes are known."""
    if not num_classes:
        return
    bad = (ids >= num_classes) & (ids != labels.IGNORE)
    if bad.any():
        y, x = np.argwhere(bad)[0].tolist()
        value, last = ids[y, x], num_classes - 1
        remedy = "Correct the mask or the list of classes."
        if value == num_classes:
            remedy = (
                "Correct the mask or the list of classes, or set data.label_map="
                f"1-{value}:0 if ids count from 1, 0:void,1-{value}:0 if moreover 0 "
                "means not labelled."
            )
        raise UserError(
            f"The mask {name} has the value {value} at column {x}, row {y}; with "
            f"{num_classes} classes the values must be 0 to {last}, or "
            f"{labels.IGNORE} for void. {remedy}"
        )


def _binary(
    mask: np.ndarray, name: str, label_map: label_map_lib.LabelMap | None
) -> np.ndarray:
    """Returns a mask of 0, 1 and IGNORE."""
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    if label_map is None and set(values) <= {0, 255}:
        return (mask == 255).astype(np.uint8)
    allowed = {0, 1} if label_map is None else {0, 1, labels.IGNORE}
    if bad := sorted(set(values) - allowed):
        raise UserError(
            f"The mask {name} has the values {', '.join(map(str, values[:8]))}; that "
            f"of one class has 0 (absent) and 1 or 255 (present), and {bad[0]} is not "
            "among them. Say in data.label_map what the values mean, such as "
            "0:0,128:void,255:1."
        )
    return mask


def palette_of(mask_file: bytes | None, reading: Reading) -> np.ndarray:
    """Returns the colours of the label map, or of a mask, else PASCAL VOC's."""
    palette = labels.voc_palette()
    if reading.multilabel:  # Whose class 0 is no background, so not black.
        palette[: labels.IGNORE - 1] = palette[1 : labels.IGNORE]
    elif reading.label_map is not None:
        if reading.label_map.colours:
            for colour, i in reversed(reading.label_map.ids.items()):
                palette[i] = colour >> 16, colour >> 8 & 255, colour & 255
    else:
        with contextlib.suppress(OSError), Image.open(io.BytesIO(mask_file)) as mask:
            if mask.mode == "P":
                own = np.array(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
                palette[: len(own)] = own
    return palette


class Statistics:
    """What is counted of a split while it is prepared."""

    def __init__(self):
        self.counts = 0  # Pixels of each id; of a multilabel set, of each class.
        self.images = {}  # Hash of the image file -> the first name with it.
        self._brightest = 0
        self._image_counts = 0
        self._max_size = np.zeros(2, np.int64)
        self._num_labelled = self._num_pixels = 0
        self._sum = self._sum_of_squares = 0.0

    def add(
        self, name: str, image_file: bytes, image: np.ndarray, ids: np.ndarray
    ) -> None:
        """Counts an image and its labels."""
        self.images.setdefault(hashlib.sha256(image_file).hexdigest(), name)
        if ids.ndim == 3:
            counts = (ids == 1).sum((0, 1))
            labelled = (ids != labels.IGNORE).sum((0, 1))
        else:
            counts = np.bincount(ids.ravel(), minlength=256)
            labelled = counts[: labels.IGNORE].sum()
        self.counts = self.counts + counts
        self._image_counts = self._image_counts + np.where(counts > 0, labelled, 0)
        self._num_labelled += int(labelled.sum())
        self._max_size = np.maximum(self._max_size, ids.shape[:2])
        self._brightest = max(self._brightest, int(image.max()))
        mean, deviation = (x[:, 0] for x in cv2.meanStdDev(image))
        num_pixels = image.shape[0] * image.shape[1]
        self._num_pixels += num_pixels
        self._sum = self._sum + num_pixels * mean
        self._sum_of_squares = self._sum_of_squares + num_pixels * (
            mean**2 + deviation**2
        )

    def as_json(self, num_classes: int) -> dict:
        """Returns what `datasets.Split` has, as JSON types."""
        mean = self._sum / self._num_pixels
        variance = np.maximum(self._sum_of_squares / self._num_pixels - mean**2, 0)
        return {
            "pixel_counts": self.counts[:num_classes].tolist(),
            "image_pixel_counts": self._image_counts[:num_classes].tolist(),
            "num_labelled": self._num_labelled,
            "max_size": self._max_size.tolist(),
            "mean": mean.tolist(),
            "std": np.sqrt(variance).tolist(),
            "brightest": self._brightest,
        }


def _ids(found: Iterable[Statistics]) -> list[int]:
    """Returns the ids, with IGNORE, that the masks of all splits have."""
    return np.flatnonzero(sum(s.counts for s in found)).tolist()


def require_classes(found: Iterable[Statistics], source: object) -> None:
    """Refuses the masks of 0 and 255 in which 255 is a class and not void."""
    ids = _ids(found)
    if len(ids) == 2 and ids[1] == labels.IGNORE:
        raise UserError(
            f"All masks of {source} have the values {ids[0]} and 255 alone, and 255 is "
            "void, so that there is only one class; if 255 is the other class, set "
            f"data.label_map={ids[0]}:0,255:1."
        )


def count_classes(found: Iterable[Statistics], source: object) -> int:
    """Returns how many classes there are, where nobody named them."""
    found = list(found)
    require_classes(found, source)
    ids = [i for i in _ids(found) if i != labels.IGNORE]
    if ids != list(range(len(ids))):
        proposed = {value: i for i, value in enumerate(ids)} | {255: labels.IGNORE}
        proposed = label_map_lib.LabelMap(proposed, colours=False)
        shown = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        raise UserError(
            f"The masks of {source} have the values {shown}, which are not 0, 1, 2 and "
            "so on; name the classes in classes.txt, or say in data.label_map what "
            f"they mean, such as {proposed}."
        )
    if len(ids) < 2:
        raise UserError(
            f"The masks of {source} have no class but {ids}; at least 2 classes are "
            "needed."
        )
    return len(ids)


def shared_images(found: Mapping[str, Statistics]) -> list[dict]:
    """Returns which splits have the same image files, and which these are.

    Returns:
        For each two splits their names, "splits"; how many images both have, "count";
        and the names of the first of these in each, "names". There may be many lists
        that share much, so only `MOST_SHARED` are named in all, or one of each two.
    """
    shared, room = [], MOST_SHARED
    pairs = itertools.combinations(found, 2)
    for a, b in sorted(pairs, key=lambda pair: set(pair) != {"train", "val"}):
        one, other = found[a].images, found[b].images
        if both := [digest for digest in one if digest in other]:
            names = [[one[h], other[h]] for h in both[: max(1, room)]]
            shared.append({"splits": [a, b], "count": len(both), "names": names})
            room -= len(names)
    return shared


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
