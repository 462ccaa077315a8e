"""A sheet of pictures: images, each beside itself with its mask laid over."""

import bisect
import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PAPER = (255, 255, 255)
_INK = (32, 32, 32)
_FAINT = (110, 110, 110)
_WIDTH = 1780  # Pixels of the sheet, at most.
_BOX = 284  # Greatest width and height of a picture.
_LEAST = 90  # Least width that a picture takes, for its caption.
_SEAM = 4  # Between an image and its overlay.
_GAP = 12
_TEXT = 14
_LONGEST_ENTRY = 300  # Of the legend.
_LONGEST = 300  # Letters of a line.
_HATCH = 8  # Pixels between the lines over void.


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image of the sheet.

    Attributes:
        image: RGB, uint8 [h, w, 3].
        overlay: The same with its mask laid over, uint8 [h, w, 3].
        void: bool [h, w]; these pixels are hatched.
        caption: Printable text.
    """

    image: np.ndarray
    overlay: np.ndarray
    void: np.ndarray
    caption: str


def draw(
    pictures: Iterable[Picture],
    legend: Sequence[tuple[tuple[int, int, int] | None, str, str]],
    title: str,
) -> np.ndarray:
    """Draws the sheet, some 1800 pixels wide.

    Small images are enlarged by a whole factor, large ones reduced.

    Args:
        pictures: The images; each is let go before the next is asked for.
        legend: For each entry an RGB colour (None: hatched), a name, and what is right
            of it, such as a share.
        title: Printable text.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    fitted = [_fit(picture) for picture in pictures]
    font = ImageFont.load_default(_TEXT)
    box = max([_LEAST, *(image.width for image, _, _ in fitted)])
    height = max([0, *(image.height for image, _, _ in fitted)])
    pair = 2 * box + _SEAM
    columns = max(1, min(_WIDTH // (pair + _GAP), len(fitted)))
    cell = height + _TEXT + 2 * _GAP
    rows = -(-len(fitted) // columns)
    entry = _entry_width(legend, font)
    width = max(columns * (pair + _GAP), min(_WIDTH, len(legend) * entry), 2 * entry)
    in_row = width // entry
    width += _GAP
    head, line = 3 * _TEXT, 3 * _TEXT // 2
    down = -(-len(legend) // in_row)  # Entries are read from top to bottom.
    below = head + rows * cell + _GAP
    sheet = Image.new("RGB", (width, below + down * line + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    big = ImageFont.load_default(_TEXT + 4)
    _write(pen, (_GAP, head // 2), title, _INK, big, width - 2 * _GAP)
    for i, (image, overlay, caption) in enumerate(fitted):
        x = _GAP + i % columns * (pair + _GAP)
        y = head + i // columns * cell
        sheet.paste(image, (x, y + height - image.height))
        sheet.paste(overlay, (x + image.width + _SEAM, y + height - image.height))
        _write(pen, (x, y + height + _TEXT), caption, _INK, font, pair)
    for i, (colour, name, note) in enumerate(legend):
        x = _GAP + i // down * entry
        y = below + i % down * line
        _swatch(sheet, pen, (x, y), colour)
        right = x + entry - 2 * _GAP
        room = right - x - 2 * _TEXT - font.getlength(note)
        _write(pen, (x + _TEXT + 6, y + _TEXT // 2), name, _INK, font, room)
        pen.text((right, y + _TEXT // 2), note, _FAINT, font, "rm")
    return np.asarray(sheet)


def _entry_width(
    legend: Sequence[tuple[tuple[int, int, int] | None, str, str]],
    font: ImageFont.FreeTypeFont,
) -> int:
    """The width of an entry of the legend: that of the longest, up to a limit."""
    lengths = [
        font.getlength(f"{_plain(name)[:_LONGEST]} {note}") for _, name, note in legend
    ]
    longest = max(lengths, default=0) + 2 * _TEXT + 2 * _GAP
    return int(min(longest, _LONGEST_ENTRY))


def _fit(picture: Picture) -> tuple[Image.Image, Image.Image, str]:
    """Image and overlay at the size that they have on the sheet, and the caption."""
    height, width = picture.void.shape
    scale = min(_BOX / width, _BOX / height)
    if scale >= 1:
        size, how = (width * int(scale), height * int(scale)), Image.Resampling.NEAREST
    else:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        how = Image.Resampling.BOX
    image = Image.fromarray(picture.image).resize(size, how)
    overlay = np.array(Image.fromarray(picture.overlay).resize(size, how))
    void = Image.fromarray(picture.void).resize(size, Image.Resampling.NEAREST)
    _hatch(overlay, np.array(void))
    return image, Image.fromarray(overlay), picture.caption


def _hatch(pixels: np.ndarray, void: np.ndarray) -> None:
    """Draws slanting lines, dark beside light to be seen on any image, over void."""
    y, x = np.indices(void.shape)
    place = (x + y) % _HATCH
    pixels[void & (place < 2)] = 255
    pixels[void & (place == 2)] = 0


def _swatch(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    colour: tuple[int, int, int] | None,
) -> None:
    x, y = corner
    if colour is None:
        square = np.full((_TEXT, _TEXT, 3), 150, np.uint8)
        _hatch(square, np.ones((_TEXT, _TEXT), bool))
        sheet.paste(Image.fromarray(square), corner)
    pen.rectangle((x, y, x + _TEXT, y + _TEXT), colour, outline=_INK)


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
    room: float,
) -> None:
    """Writes one line; what does not fit is cut out of its middle."""
    text = _plain(text)
    if font.getlength(text[:_LONGEST]) > room or len(text) > _LONGEST:
        keep = bisect.bisect_right(
            range(min(len(text), _LONGEST)),
            room,
            lo=1,
            key=lambda n: font.getlength(_middle_cut(text, n)),
        )
        text = _middle_cut(text, keep - 1)
    pen.text(place, text, colour, font, "lm")


def _middle_cut(text: str, keep: int) -> str:
    """A text with the first and the last of its letters, ``keep`` in all."""
    return f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"


def _plain(text: str) -> str:
    """Letters that Pillow's own font lacks, without accents or as escapes."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(
        c if c.isascii() else ascii(c)[1:-1]
        for c in letters
        if not unicodedata.combining(c)
    )
