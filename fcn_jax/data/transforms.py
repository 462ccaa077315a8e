"""From a stored record to arrays of a static size, image and label together.

Records are ``{"image": JPEG or PNG bytes, "mask": PNG bytes, "name": str}``. Images
are uint8 RGB [h, w, 3], labels uint8 [h, w] of class ids and ``labels.IGNORE``.

Training shares its cores with these functions, so the order of the work is chosen
for its cost: a window of the source is cut out before it is resized, never a whole
image resized and then cut, and all colour changes are one pass over the crop.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import cv2
import numpy as np

from fcn_jax.data import images, labels
from fcn_jax.errors import UserError

# Images are read by several threads or processes at once; OpenCV's own threads would
# only compete with those, and with XLA. Set here, it holds in worker processes too.
cv2.setNumThreads(1)

# Bilinear interpolation looks at 2x2 source pixels. Shrinking to less than this would
# skip pixels and alias; averaging the covered area avoids that, but costs five times
# as much.
_AREA_BELOW = 0.7

_MAX_CHANNELS = 100  # Of one array in OpenCV; its limit depends on the version.

# Colour changes in the manner of SSD: each with a chance of one half, by at most this.
_CHANCE = 0.5
_BRIGHTNESS = 32.0  # Added, of 255.
_CONTRAST = 0.5  # Factor 1 +- this, as is saturation's.
_SATURATION = 0.5
_HUE = math.radians(18)

# RGB to YIQ: luma and two axes of colour, by the definition of NTSC.
_LUMA = np.array([0.30, 0.59, 0.11])
_RED, _BLUE = np.eye(3)[[0, 2]] - _LUMA
_YIQ = np.stack([_LUMA, 0.74 * _RED - 0.27 * _BLUE, 0.48 * _RED + 0.41 * _BLUE])
_RGB = np.linalg.inv(_YIQ)


def decode(record: Mapping, num_masks: int | None = None) -> dict[str, np.ndarray]:
    """Returns a record's "image" uint8 [h, w, 3] and "label".

    Args:
        record: The record.
        num_masks: How many masks of 0, 1 and IGNORE it has; None: one of class ids.

    Returns:
        The label is uint8 [h, w], or [h, w, num_masks].
    """
    label = images.decode_mask(record["mask"])
    if num_masks is not None:
        label = label.reshape(num_masks, -1, label.shape[1]).transpose(1, 2, 0)
        label = np.ascontiguousarray(label)
    return {"image": images.decode_image(record["image"]), "label": label}


def resize(
    image: np.ndarray, label: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image and its label to ``size`` (height, width).

    In both, output pixel ``i`` of ``m`` is centred on source pixel
    ``(i + 0.5) * n / m - 0.5`` of ``n``, so that every label stays on its pixel.
    Labels never mix.
    """
    return resize_image(image, size), _resize_label(label, size)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [h, w, 3] to ``size`` (height, width), smoothly."""
    shrinks = min(size[0] / image.shape[0], size[1] / image.shape[1]) < _AREA_BELOW
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=method)


def _resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # INTER_NEAREST is not aligned with the image: it takes the pixel's upper left.
    nearest = functools.partial(
        cv2.resize, dsize=size[::-1], interpolation=cv2.INTER_NEAREST_EXACT
    )
    if label.ndim == 2:
        return nearest(label)
    parts = (
        nearest(label[..., i : i + _MAX_CHANNELS])
        for i in range(0, label.shape[2], _MAX_CHANNELS)
    )
    # OpenCV drops an axis of one.
    return np.concatenate([part.reshape(*size, -1) for part in parts], axis=-1)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the height and width of an image of ``size`` resized by ``scale``."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random scale, crop, flip and colours: (record, rng) -> training example.

    The example holds "image" uint8 [H, W, 3], "label" uint8 [H, W], or [H, W,
    num_masks], and "size" int32 [2], for a crop of H x W. Where the scaled image is
    smaller than the crop, it lies at the top left, "size" is its height and width, and
    0 (image) and IGNORE (label) fill the rest.

    Attributes:
        crop: Height and width of the example, in pixels.
        scale: Range of the random scale.
        image_scale: Factor on top of the random scale.
        flip: Whether every other example is mirrored.
        photometric: Whether brightness, contrast, saturation and hue change.
        num_masks: See `decode`.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    image_scale: float = 1.0
    flip: bool = True
    photometric: bool = True
    num_masks: int | None = None

    def __post_init__(self):
        """Raises UserError for sizes and scales that give no image."""
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise UserError(
                f"The crop is {self.crop}; give a height and a width of 1 or more."
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(
                f"The scale range is {self.scale}; give a lower and an upper factor, "
                "both above 0."
            )
        if not self.image_scale > 0:
            raise UserError(
                f"The image scale is {self.image_scale}; it must be above 0."
            )

    def __call__(
        self, record: Mapping, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns the example that ``rng`` picks from a record."""
        decoded = decode(record, self.num_masks)
        image, label = decoded["image"], decoded["label"]
        scale = rng.uniform(*self.scale) * self.image_scale
        rows, height = _window(label.shape[0], self.crop[0], scale, rng)
        columns, width = _window(label.shape[1], self.crop[1], scale, rng)
        image, label = resize(
            image[rows, columns], label[rows, columns], (height, width)
        )
        if self.flip and rng.random() < 0.5:
            image = cv2.flip(image, 1)
            if label.ndim == 2:
                label = cv2.flip(label, 1)  # Faster, but for a few channels only.
            else:
                label = np.ascontiguousarray(label[:, ::-1])
        if self.photometric:
            image = recolour(image, **_random_colours(rng))
        return {
            "image": _place(image, self.crop, 0),
            "label": _place(label, self.crop, labels.IGNORE),
            "size": np.array([height, width], np.int32),
        }


def _window(
    length: int, crop: int, scale: float, rng: np.random.Generator
) -> tuple[slice, int]:
    """Chooses, along one axis, the source pixels of a crop and its extent.

    A crop of the scaled image shows ``crop / scale`` source pixels. Rounding those to
    whole pixels, rather than cutting the resized image, changes the scale by less than
    half a pixel over the window and leaves an exact map: the window, resized.
    """
    window = max(1, round(crop / scale))
    if window < length:
        start = int(rng.integers(length - window + 1))
        return slice(start, start + window), crop
    return slice(0, length), min(crop, max(1, round(length * scale)))


def _random_colours(rng: np.random.Generator) -> dict[str, float]:
    def draw(limit: float) -> float:
        value = rng.uniform(-limit, limit)
        return value if rng.random() < _CHANCE else 0.0

    return {
        "brightness": draw(_BRIGHTNESS),
        "contrast": 1 + draw(_CONTRAST),
        "saturation": 1 + draw(_SATURATION),
        "hue": draw(_HUE),
    }


def recolour(
    image: np.ndarray,
    *,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
) -> np.ndarray:
    """Changes the colours of a uint8 RGB image [h, w, 3], clipped to 0..255.

    Each change is affine in RGB (hue turns, and saturation stretches, the two colour
    axes of YIQ; greys stay grey), hence so are all four together: one matrix, one pass
    and one rounding, at a tenth of the cost of the usual way through HSV.

    Args:
        image: The image.
        brightness: Added to every value, of 255.
        contrast: Factor on every value, after the brightness was added.
        saturation: Factor on the distance from grey.
        hue: Rotation of the colours, in radians.
    """
    cos, sin = saturation * math.cos(hue), saturation * math.sin(hue)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = np.column_stack([_RGB @ turn @ _YIQ, np.full(3, brightness)])
    return cv2.transform(image, contrast * matrix)


def _place(array: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """Puts an array [h, w, ...] at the top left of a canvas of ``size``."""
    height, width = array.shape[:2]
    if (height, width) == size:
        return array
    canvas = np.full((*size, *array.shape[2:]), fill, array.dtype)
    canvas[:height, :width] = array
    return canvas


def evaluation_example(
    record: Mapping,
    *,
    canvas: tuple[int, int],
    label_canvas: tuple[int, int],
    image_scale: float = 1.0,
    num_masks: int | None = None,
) -> dict[str, np.ndarray]:
    """Returns a whole image, resized by ``image_scale``, and its label at full size.

    Args:
        record: The record.
        canvas: Height and width Hc, Wc that every resized image fits in.
        label_canvas: Height and width Hl, Wl that every label fits in.
        image_scale: Factor on the image alone.
        num_masks: See `decode`.

    Returns:
        "image" uint8 [Hc, Wc, 3] and "label" uint8 [Hl, Wl], or [Hl, Wl, num_masks],
        at the top left and filled up with 0 and IGNORE; "size" and "label_size" int32
        [2], their true heights and widths.
    """
    decoded = decode(record, num_masks)
    image, label = decoded["image"], decoded["label"]
    size = scaled_size(label.shape[:2], image_scale)
    return {
        "image": _place(resize_image(image, size), canvas, 0),
        "size": np.array(size, np.int32),
        "label": _place(label, label_canvas, labels.IGNORE),
        "label_size": np.array(label.shape[:2], np.int32),
    }


def unlabelled_example(
    canvas: tuple[int, int],
    label_canvas: tuple[int, int],
    num_masks: int | None = None,
) -> dict[str, np.ndarray]:
    """Returns an evaluation example that counts for nothing: one black, void pixel."""
    masks = () if num_masks is None else (num_masks,)
    return {
        "image": np.zeros((*canvas, 3), np.uint8),
        "size": np.ones(2, np.int32),
        "label": np.full((*label_canvas, *masks), labels.IGNORE, np.uint8),
        "label_size": np.ones(2, np.int32),
    }
