"""Which part of an image the network needs to see for which of its pixels.

An image is worked on in one or several views, each resized and perhaps mirrored, and
each is cut into windows. All here is of one axis, rows or columns, since both are cut
alike. A window begins at a multiple of 32 pixels of its view, so that its cells are
those of the whole view, and holds all that the scores of its pixels depend on
(``receptive_field.reach``): they equal those of the whole view. Where it ends at a
border of the view, the network treats it as such.
"""

import dataclasses

import numpy as np

from fcn_jax.models import receptive_field


@dataclasses.dataclass(frozen=True)
class Side:
    """An axis of a view.

    Attributes:
        size: pixels of the view along it.
        mirrored: whether they run backwards.
    """

    size: int
    mirrored: bool = False


def positions(
    start: int, stop: int, out_size: int, side: Side
) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels of an image lie in a view of it.

    Pixel centres are aligned and the border value continues outwards, as in
    ``upsampling.resize``. Computed by integers, hence exactly.

    Args:
        start: the first of the image's pixels.
        stop: the one after the last.
        out_size: how many the image has.
        side: of the view.

    Returns:
        Pixels of the view, int32 [stop - start], and fractions of the way to the next
        ones, float32 [stop - start].
    """
    pixels = np.arange(start, stop, dtype=np.int64)
    if side.mirrored:
        pixels = out_size - 1 - pixels
    # (pixel + 1/2) * size / out_size - 1/2, times 2 * out_size.
    place = (2 * pixels + 1) * side.size - out_size
    place = np.clip(place, 0, 2 * out_size * (side.size - 1))
    cells, rest = np.divmod(place, 2 * out_size)
    return cells.astype(np.int32), (rest / (2 * out_size)).astype(np.float32)


def window(
    start: int, stop: int, out_size: int, side: Side, reach: tuple[int, int]
) -> tuple[int, int]:
    """The part of a view that the network needs to see for some pixels of the image.

    Args:
        start: see ``positions``.
        stop: likewise.
        out_size: likewise.
        side: likewise.
        reach: see ``receptive_field.reach``.

    Returns:
        First pixel of the view, a multiple of 32, and the one after the last.
    """
    cells, fractions = positions(start, stop, out_size, side)
    first = int(cells.min()) - reach[0]
    first -= first % receptive_field.ALIGNMENT
    last = int((cells + (fractions > 0)).max()) + reach[1]
    return max(0, first), min(side.size, last + 1)


def cut(
    out_size: int, sides: list[Side], tile: int, reach: tuple[int, int]
) -> list[tuple[int, int]]:
    """Cuts an image so that the windows of each part fit into a tile, in all views.

    Args:
        out_size: pixels of the image.
        sides: of its views.
        tile: largest window, in pixels; at least ``smallest_tile``. 0: no limit.
        reach: see ``receptive_field.reach``.

    Returns:
        Start and stop of each part; a single one where all views fit into a tile.
    """
    if not tile or max(side.size for side in sides) <= tile:
        return [(0, out_size)]

    def fits(start: int, stop: int) -> bool:
        windows = (window(start, stop, out_size, side, reach) for side in sides)
        return all(last - first <= tile for first, last in windows)

    parts, start = [], 0
    while start < out_size:
        # The longest that fits, by bisection: longer parts have longer windows.
        low, high = start + 1, min(out_size, start + tile * _zoom(out_size, sides)) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(start, middle) else (low, middle)
        parts.append((start, low))
        start = low
    return parts


def _zoom(out_size: int, sides: list[Side]) -> int:
    """Pixels of the image, rounded up, for one of its largest view."""
    return -(-out_size // max(side.size for side in sides))


def smallest_tile(margin: int) -> int:
    """The smallest tile with room for a margin on both sides and one cell between."""
    return 2 * margin + receptive_field.ALIGNMENT
