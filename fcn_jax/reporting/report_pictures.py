"""Pictures inside a page: small, as data URIs."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from fcn_jax.data.labels import IGNORE
from fcn_jax.reporting import colors

_SIDES = (640, 448, 320, 224)  # Longest side of a picture; the first that fits.
_BUDGET = 6_000_000  # Bytes of all pictures of a page, before they become text.
_MISSED, _EXTRA, _BOTH = (0, 114, 240), (240, 90, 10), (190, 30, 190)
_HATCH = 8  # Pixels between the lines over void.


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        title: what it shows.
        uri: ``data:`` and so on.
        width: in pixels.
        height: in pixels.
    """

    title: str
    uri: str
    width: int
    height: int


def rows(shown: list, palette: np.ndarray) -> list[list[Picture]]:
    """Input, truth, prediction and error map of each image.

    Args:
        shown: images, each with ``image``, ``truth`` and ``prediction``, see
            ``evaluation.collector.Shown``.
        palette: uint8 [256,3].

    Returns:
        Four pictures for each, all of one size, which is such that a page stays below
        some 10 MB.
    """
    made = [[] for _ in shown]
    for side in _SIDES:
        made = [_row(one, palette, side) for one in shown]
        if sum(len(data) for row in made for _, _, data, _ in row) <= _BUDGET:
            break
    return [
        [
            Picture(
                title, f"data:{kind};base64,{base64.b64encode(data).decode()}", *size
            )
            for title, kind, data, size in row
        ]
        for row in made
    ]


def _row(one, palette: np.ndarray, side: int) -> list[tuple]:
    """Title, media type, data and size of each picture of an image."""
    image, truth, prediction = one.image, one.truth, one.prediction
    scale = min(1, side / max(truth.shape[:2]))
    height, width = (max(1, round(scale * n)) for n in truth.shape[:2])
    # Masks and errors are made of the same pixels, so that they agree.
    rows, columns = (
        ((np.arange(m) + 0.5) * n / m).astype(int)
        for m, n in zip((height, width), truth.shape[:2], strict=True)
    )
    truth, prediction = (a[rows[:, None], columns] for a in (truth, prediction))
    image = np.asarray(
        Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    )
    if truth.ndim == 2:
        masks = [_png(ids, palette) for ids in (truth, prediction)]
    else:
        masks = [
            _jpeg(colors.overlay(image, m, palette, 0.7)) for m in (truth, prediction)
        ]
    pictures = [_jpeg(image), *masks, _jpeg(error_map(image, truth, prediction))]
    titles = ("Input", "Truth", "Prediction", "Errors")
    return [
        (title, *picture, (width, height))
        for title, picture in zip(titles, pictures, strict=True)
    ]


def error_map(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray
) -> np.ndarray:
    """Shows where a prediction is wrong.

    Right pixels are the image, grey and dim; wrong ones are orange, and void is
    hatched. Where a pixel may be of several classes, blue is one that is missed, orange
    one too many, purple both.

    Args:
        image: RGB, uint8 [h,w,3].
        truth: uint8 [h,w] of ids, or [h,w,C] of 0 and 1; 255 is void.
        prediction: uint8, of the same shape.

    Returns:
        RGB, uint8 [h,w,3].
    """
    # Neither bright nor dark, to suit light and dark pages.
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)
    shown = np.repeat((70 + 0.3 * grey)[..., None], 3, axis=2).astype(np.uint8)
    labelled = truth != IGNORE
    if truth.ndim == 2:
        shown[labelled & (truth != prediction)] = _EXTRA
        void = ~labelled
    else:
        missed = (labelled & (truth == 1) & (prediction == 0)).any(-1)
        extra = (labelled & (truth == 0) & (prediction == 1)).any(-1)
        shown[missed], shown[extra], shown[missed & extra] = _MISSED, _EXTRA, _BOTH
        void = ~labelled.any(-1)
    y, x = np.indices(void.shape)
    stripe = (x + y) % _HATCH < _HATCH // 4
    shown[void] = 150
    shown[void & stripe] = 90
    return shown


def _png(ids: np.ndarray, palette: np.ndarray) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    picture = Image.fromarray(ids)
    picture.putpalette(palette.tobytes())
    picture.save(buffer, "PNG", optimize=True)
    return "image/png", buffer.getvalue()


def _jpeg(rgb: np.ndarray) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=85, subsampling=0)
    return "image/jpeg", buffer.getvalue()
