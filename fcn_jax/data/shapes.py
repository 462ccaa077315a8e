"""A small generated data set: textured shapes that overlap on textured grounds.

Grounds are dull and shapes vivid, but beyond that colours and textures are random: only
its form tells the class of a shape.
"""

import functools
import pathlib

import cv2
import numpy as np

from fcn_jax.data import builder, images, labels
from fcn_jax.data import files as files_lib

CLASSES = ("background", "circle", "square", "triangle", "star", "ring", "cross")
_VERSION = 1  # To be counted up when the images change, so that they are made anew.
_SIZES = {"train": 600, "val": 100}
_SIDES = (96, 144)  # Pixels, both included, as below.
_RADII = (18, 40)
_INSIDE = 0.7  # Of the radius: the least distance of the centre from the image's edge.
_MAX_HIDDEN = 0.3  # Of a shape's area, by one other shape.
_TRIES = 20  # To place a shape.
_NUMBERS = (2, 4)  # Of shapes in an image.
_MAX_TURN = np.pi / 9  # Either way.
_DULL = (0.0, 0.3), (0.2, 0.9)  # Ranges of saturation and value of the grounds,
_VIVID = (0.6, 1.0), (0.5, 1.0)  # and of the shapes.


def scan(seed: int = 0) -> builder.SegmentationConfig:
    """Lists the images to generate."""
    splits = {
        split: [
            builder.Item(
                f"{split}_{i:04}", f"{split}/{i}/image", (f"{split}/{i}/mask",)
            )
            for i in range(size)
        ]
        for split, size in _SIZES.items()
    }
    files = _Scenes(seed)
    return builder.make_config(
        files.path, files, splits, CLASSES, palette=labels.voc_palette()
    )


class _Scenes(files_lib.Files):
    """Generates a file when it is read."""

    def __init__(self, seed: int):
        self.path = pathlib.Path(f"/shapes_{seed}")  # Names the data set only.
        self.names = set()
        self._seed = seed

    def read(self, name: str) -> bytes:
        split, index, kind = name.split("/")
        seed = (self._seed, list(_SIZES).index(split), int(index))
        return images.encode_png(_generate(seed)[kind == "mask"])

    def stat(self, name: str) -> tuple[int, int]:
        return 0, _VERSION


@functools.lru_cache(maxsize=1)  # The mask is read right after the image.
def _generate(seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return draw_scene(np.random.default_rng(seed))


def draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image uint8 [h, w, 3] and its class ids uint8 [h, w].

    Where two regions meet, the pixel on either side is void.
    """
    size = tuple(rng.integers(_SIDES[0], _SIDES[1] + 1, 2).tolist())
    image = _texture(rng, _colour(rng, *_DULL), size)
    ids = np.zeros(size, np.uint8)
    regions = np.zeros(size, np.uint8)  # 0 for the ground, then each shape's own.
    areas = [ids.size]
    for _ in range(rng.integers(_NUMBERS[0], _NUMBERS[1] + 1)):
        class_id = int(rng.integers(1, len(CLASSES)))
        inside = _place(rng, CLASSES[class_id], regions, areas)
        if inside is None:
            continue
        # A slightly soft edge, as a lens makes it.
        alpha = cv2.GaussianBlur(inside.astype(np.float32), (3, 3), 0.6)[..., None]
        image += alpha * (_texture(rng, _colour(rng, *_VIVID), size) - image)
        ids[inside == 1] = class_id
        regions[inside == 1] = len(areas)
        areas.append(int(inside.sum()))
    square = np.ones((3, 3), np.uint8)
    ids[cv2.dilate(regions, square) != cv2.erode(regions, square)] = labels.IGNORE
    image += rng.normal(0, rng.uniform(2, 8), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), ids


def _place(
    rng: np.random.Generator, form: str, regions: np.ndarray, areas: list[int]
) -> np.ndarray | None:
    """Returns uint8 [h, w], 1 inside the form, or None if there is no room.

    Earlier shapes stay recognizable: some of each may be hidden, but not most.
    """
    height, width = regions.shape
    for _ in range(_TRIES):
        radius = rng.uniform(*_RADII)
        margin = _INSIDE * radius
        centre = rng.uniform(margin, (width - margin, height - margin))
        inside = _draw(rng, form, radius, centre, regions.shape)
        hidden = np.bincount(regions[inside == 1], minlength=len(areas))
        if all(hidden[1:] <= _MAX_HIDDEN * np.array(areas[1:])):
            return inside
    return None


def _colour(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """Returns float [3] in 0..255: any hue, within the given ranges of 0..1."""
    hue = rng.uniform(0, 6) + np.array([0, 2, 4])
    pure = np.clip(np.abs(hue % 6 - 3) - 1, 0, 1)
    return 255 * rng.uniform(*value) * (1 - rng.uniform(*saturation) * (1 - pure))


def _texture(
    rng: np.random.Generator, colour: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns float32 [h, w, 3]: a colour with shading and stripes, checks or spots."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    frequency = 2 * np.pi / rng.uniform(5, 16)
    kind = rng.integers(4)
    if kind == 0:
        pattern = np.sin(along * frequency)
    elif kind == 1:
        pattern = np.sign(np.sin(along * frequency) * np.sin(across * frequency))
    elif kind == 2:
        spots = rng.normal(size=(height // 6, width // 6)).astype(np.float32)
        pattern = cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        pattern = np.zeros((height, width), np.float32)
    pattern = pattern[..., None] * rng.uniform(-22, 22, 3)
    shading = along[..., None] / max(size) * rng.uniform(-30, 30)
    return (colour + pattern + shading).astype(np.float32)


def _draw(
    rng: np.random.Generator,
    form: str,
    radius: float,
    centre: np.ndarray,
    size: tuple[int, int],
) -> np.ndarray:
    """Returns uint8 [h, w], 1 inside a turned and slightly stretched form."""
    turn = rng.uniform(-_MAX_TURN, _MAX_TURN)
    stretch = np.diag(rng.uniform(0.9, 1.1, 2))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # Whole numbers of 1/16 pixel.
    outlines = [
        np.rint((outline * radius @ stretch @ rotation + centre) * 16).astype(np.int32)
        for outline in _OUTLINES[form]
    ]
    inside = np.zeros(size, np.uint8)
    cv2.fillPoly(inside, outlines, 1, shift=4)  # A second outline makes a hole.
    return inside


def _polygon(corners: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """Returns float [corners, 2], the corners' distances from 0 taking turns."""
    angles = np.arange(corners) * 2 * np.pi / corners
    distances = np.resize(radii, corners)[:, None]
    return distances * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cross(arm: float) -> np.ndarray:
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
    turn = np.array([[0, 1], [-1, 0]])
    turns = [np.linalg.matrix_power(turn, n) for n in range(4)]
    return np.concatenate([quarter @ t for t in turns])


_UPRIGHT = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
_ON_ITS_BASE = np.array([[0, -1], [1, 0]])
_OUTLINES = {
    "circle": [_polygon(60)],
    "square": [_polygon(4) @ _UPRIGHT],
    "triangle": [_polygon(3) @ _ON_ITS_BASE],
    "star": [_polygon(10, (1.0, 0.45)) @ _ON_ITS_BASE],
    "ring": [_polygon(60), _polygon(60, (0.55,))],
    "cross": [_cross(0.3)],
}
