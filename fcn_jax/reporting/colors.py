"""Pictures of predictions: masks, overlays and panels for people to look at.

A prediction, or a truth, is uint8 [h, w] of class ids, or where a pixel may be of
several classes uint8 [h, w, C], 1 where a class is present, with `IGNORE` for void.
"""

import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from fcn_jax import remote
from fcn_jax.data import labels, transforms

_PAPER = (255, 255, 255)
_INK = (32, 32, 32)
_MIN_SIDE = 256  # Smaller images are enlarged in panels, so that captions fit.


def colorize(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Returns the colours of a prediction, uint8 [h, w, 3].

    Where several classes are present it is the mean of theirs, where none is, black.
    """
    if ids.ndim == 2:
        return palette[ids]
    present = (ids == 1).astype(np.float32)
    colours = present @ palette[: ids.shape[-1]].astype(np.float32)
    number = np.maximum(present.sum(-1, keepdims=True), 1)
    return np.rint(colours / number).astype(np.uint8)


def overlay(
    image: np.ndarray, ids: np.ndarray, palette: np.ndarray, alpha: float = 0.5
) -> np.ndarray:
    """Lays the colours of a prediction over an image.

    Void pixels, and those where of several classes none is present, stay as they are.

    Args:
        image: RGB, uint8 [h, w, 3].
        ids: The prediction.
        palette: Colours, uint8 [256, 3].
        alpha: Weight of the colours, from 0 to 1.

    Returns:
        RGB, uint8 [h, w, 3].
    """
    mixed = np.rint((1 - alpha) * image + alpha * colorize(ids, palette))
    bare = ids == labels.IGNORE if ids.ndim == 2 else ~(ids == 1).any(-1)
    return np.where(bare[..., None], image, mixed.astype(np.uint8))


def panel(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    palette: np.ndarray,
    class_names: Sequence[str],
) -> np.ndarray:
    """Draws image, truth and prediction side by side, over a legend of their classes.

    Args:
        image: RGB, uint8 [h, w, 3].
        truth: The truth.
        prediction: The prediction, of the same shape.
        palette: Colours, uint8 [256, 3].
        class_names: Names of the classes.

    Returns:
        RGB, uint8 [H, W, 3]; small images are enlarged by a whole factor.
    """
    height, width = truth.shape[:2]
    factor = max(1, -(-_MIN_SIDE // max(height, width)))
    height, width = height * factor, width * factor
    text = max(13, round(0.04 * max(height, width)))
    font = ImageFont.load_default(text)
    gap = max(2, text // 4)
    head = 2 * text

    pictures = {
        "image": image,
        "truth": colorize(truth, palette),
        "prediction": colorize(prediction, palette),
    }
    column = max(width, *(round(font.getlength(name)) for name in pictures)) + gap
    names = dict(enumerate(class_names)) | {labels.IGNORE: "void"}
    shown = [(palette[i], names.get(i, f"class {i}")) for i in _ids(truth, prediction)]
    entry = max(round(font.getlength(name)) for _, name in shown) + 3 * text
    total = max(3 * column - gap, entry)
    in_row = total // entry
    foot = text + -(-len(shown) // in_row) * 3 * text // 2

    canvas = Image.new("RGB", (total, head + height + foot), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (name, picture) in enumerate(pictures.items()):
        enlarged = picture.repeat(factor, 0).repeat(factor, 1)
        canvas.paste(Image.fromarray(enlarged), (i * column, head))
        draw.text((i * column + gap, head // 2), name, _INK, font, anchor="lm")
    for i, (color, name) in enumerate(shown):
        x = text // 2 + i % in_row * entry
        y = head + height + text // 2 + i // in_row * 3 * text // 2
        square = (x, y, x + text, y + text)
        draw.rectangle(square, tuple(color.tolist()), outline=_INK)
        draw.text((x + 1.5 * text, y + text // 2), name, _INK, font, anchor="lm")
    return np.asarray(canvas)


def panels(
    pairs: Mapping[str, tuple[Mapping, np.ndarray]],
    palette: np.ndarray,
    class_names: Sequence[str],
) -> dict[str, np.ndarray]:
    """Returns a `panel` for each name.

    Args:
        pairs: By name: a record of a data set, and the prediction for its image in the
            top left of uint8 [H, W] or [H, W, C].
        palette: uint8 [256, 3].
        class_names: By id.
    """
    pictures = {}
    for name, (record, prediction) in sorted(pairs.items()):
        num_masks = prediction.shape[2] if prediction.ndim == 3 else None
        decoded = transforms.decode(record, num_masks)
        image, truth = decoded["image"], decoded["label"]
        height, width = truth.shape[:2]
        pictures[name] = panel(
            image, truth, prediction[:height, :width], palette, class_names
        )
    return pictures


def _ids(*masks: np.ndarray) -> list[int]:
    """Returns the ids that occur in any of the masks, in order."""
    if masks[0].ndim == 3:
        present = np.any([(mask == 1).any((0, 1)) for mask in masks], axis=0)
        return np.flatnonzero(present).tolist()
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    return np.flatnonzero(counts).tolist()


def save_mask(path: os.PathLike | str, ids: np.ndarray, palette: np.ndarray) -> None:
    """Writes class ids, uint8 [h, w], as a palette PNG, whole or not at all."""
    picture = Image.fromarray(ids)
    picture.putpalette(palette.tobytes())
    _save(path, picture)


def save_image(path: os.PathLike | str, rgb: np.ndarray) -> None:
    """Writes RGB, uint8 [h, w, 3], as a PNG, whole or not at all."""
    _save(path, Image.fromarray(rgb))


def _save(path: os.PathLike | str, picture: Image.Image) -> None:
    if remote.is_url(path):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        epath.Path(path).write_bytes(buffer.getvalue())  # Appears when it is whole.
        return
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    try:
        picture.save(part, "PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
