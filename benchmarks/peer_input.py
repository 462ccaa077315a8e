"""Training examples as PyTorch users make them with OpenCV, and made images.

Not a part of the package: the other side of ``input_pipeline``.
"""

import cv2
import numpy as np

from fcn_jax.data.labels import IGNORE


def make_records(height: int, width: int, count: int) -> list[dict]:
    """Makes records of clouds and discs: JPEGs at quality 90 and masks of 21 classes.

    Noise at several scales compresses about as well as photographs do; plain noise
    would take several times as long to decode.
    """
    rng = np.random.default_rng(0)
    records = []
    for index in range(count):
        image = np.zeros((height, width, 3), np.float32)
        for octave in range(1, 9):
            shape = (height * 2**octave // 256 + 2, width * 2**octave // 256 + 2, 3)
            noise = rng.normal(size=shape).astype(np.float32)
            noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
            image += noise * 48 / 1.6**octave
        mask = np.zeros((height, width), np.uint8)
        for class_id in rng.integers(1, 21, size=6):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            radius = int(rng.integers(height // 12 + 1, height // 4 + 2))
            cv2.circle(mask, centre, radius, int(class_id), -1)
            cv2.circle(mask, centre, radius, IGNORE, 5)
        image = np.clip(image + 120, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        records.append(
            {
                "image": cv2.imencode(".jpg", image, quality)[1].tobytes(),
                "mask": cv2.imencode(".png", mask)[1].tobytes(),
                "name": str(index),
            }
        )
    return records


def decode(record: dict) -> tuple[np.ndarray, np.ndarray]:
    """RGB and class ids, by OpenCV."""
    image, mask = (np.frombuffer(record[k], np.uint8) for k in ("image", "mask"))
    image = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
    return image, cv2.imdecode(mask, cv2.IMREAD_UNCHANGED)


class Usual:
    """Scale, crop, flip, colours and, at last, padding, each of a whole image."""

    def __init__(
        self, crop, scale=(0.5, 2.0), image_scale=1.0, flip=True, colours=True
    ):
        """The arguments are those of ``transforms.Augment``."""
        self.crop, self.scale, self.image_scale = crop, scale, image_scale
        self.flip, self.colours = flip, colours
        self.rng = None

    def __call__(self, record: dict) -> dict[str, np.ndarray]:
        """One random example of a record."""
        if self.rng is None:  # In each worker its own.
            self.rng = np.random.default_rng()
        rng = self.rng
        image, label = decode(record)
        scale = rng.uniform(*self.scale) * self.image_scale
        size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        top, left = (
            int(rng.integers(max(0, m - n) + 1))
            for n, m in zip(self.crop, label.shape, strict=True)
        )
        rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
        image, label = image[rows, columns], label[rows, columns]
        if self.flip and rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        if self.colours:
            image = recolour(image, rng)
        below, right = (n - m for n, m in zip(self.crop, label.shape, strict=True))
        if below or right:
            border = (0, below, 0, right, cv2.BORDER_CONSTANT)
            image = cv2.copyMakeBorder(image, *border, value=(0, 0, 0))
            label = cv2.copyMakeBorder(label, *border, value=IGNORE)
        return {
            "image": np.ascontiguousarray(image),
            "label": np.ascontiguousarray(label),
        }


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each for half the images."""

    def affine(values, factor=1.0, shift=0.0):
        values = values.astype(np.float32) * factor + shift
        return np.clip(values, 0, 255).astype(np.uint8)

    chance = rng.random(4) < 0.5
    if chance[0]:
        image = affine(image, shift=rng.uniform(-32, 32))
    if chance[1]:
        image = affine(image, rng.uniform(0.5, 1.5))
    if chance[2] or chance[3]:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        if chance[2]:
            hsv[..., 1] = affine(hsv[..., 1], rng.uniform(0.5, 1.5))
        if chance[3]:
            hue = hsv[..., 0].astype(int) + int(rng.integers(-18, 19))
            hsv[..., 0] = hue % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image


class Generated:
    """A function of (record, generator), with a generator of each worker's own."""

    def __init__(self, augment):
        """``augment``: a ``transforms.Augment``."""
        self.augment, self.rng = augment, None

    def __call__(self, record: dict) -> dict[str, np.ndarray]:
        """One random example of a record."""
        if self.rng is None:
            self.rng = np.random.default_rng()
        return self.augment(record, self.rng)


class Examples:
    """A DataLoader's data set: as good as endless, so that no epoch ends."""

    def __init__(self, records, make):
        """``make``: record -> example."""
        self.records, self.make = records, make

    def __len__(self):
        return 10**9

    def __getitem__(self, i):
        cv2.setNumThreads(1)
        return self.make(self.records[i % len(self.records)])
