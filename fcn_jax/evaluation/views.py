"""Images as the network is to see them: scaled, mirrored, in tiles, in batches."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fcn_jax import sharding
from fcn_jax.data import transforms
from fcn_jax.evaluation import tiles


@dataclasses.dataclass
class Prediction:
    """An image, its views, and what is found of it; arrays fill up part by part.

    Attributes:
        image: RGB, uint8 [h,w,3].
        views: the same, as the network is to see it; dropped at the end.
        tag: what the caller knows it by.
        ids: class ids, uint8 [h,w]; multilabel: 0 or 1, uint8 [h,w,C].
        probabilities: [h,w,C], if wanted.
    """

    image: np.ndarray
    views: tuple[np.ndarray, ...]
    tag: Any = None
    ids: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    remaining: int = 0  # Parts that are still to come.


@dataclasses.dataclass
class Part:
    """A rectangle of an image; an image that needs no tiles is one.

    Attributes:
        of: the image.
        rows, columns: start and stop of what is predicted.
        canvas: height and width that hold it.
        canvases: those that hold its window of each view.
    """

    of: Prediction
    rows: tuple[int, int]
    columns: tuple[int, int]
    canvas: tuple[int, int]
    canvases: tuple[tuple[int, int], ...]

    @property
    def place(self) -> tuple[slice, slice]:
        """Where it is in the image."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def plain(self) -> bool:
        """Whether it is a whole image that the network sees just as it is."""
        size, (view, *others) = self.of.image.shape[:2], self.of.views
        whole = self.rows == (0, size[0]) and self.columns == (0, size[1])
        return whole and not others and view.shape[:2] == size

    @property
    def kind(self) -> tuple:
        """What is the same for all parts that can share a batch."""
        return self.canvas, self.canvases, self.plain


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of every image.

    Attributes:
        mesh: of the devices, which share the rows of a canvas.
        image_scale: factor on every image.
        max_side: longest side of an image after that, in pixels; 0: no limit.
        scales: of the views, factors on the size so found.
        flip: whether there is a mirrored view of each scale, too.
        tile: longest side of a window; 0: no limit.
        reach: of the network, see ``receptive_field.reach``.
    """

    mesh: jax.sharding.Mesh
    image_scale: float
    max_side: int
    scales: tuple[float, ...]
    flip: bool
    tile: int
    reach: tuple[int, int]

    @property
    def _each(self) -> list[tuple[float, bool]]:
        return [(s, m) for s in self.scales for m in (False, True)[: 1 + self.flip]]

    def __len__(self) -> int:
        return len(self._each)

    def prepare(self, image: np.ndarray, tag: Any = None) -> Prediction:
        """Makes the views of an image.

        Args:
            image: RGB, uint8 [h,w,3].
            tag: anything, to know it by.
        """
        size, scale = image.shape[:2], self.image_scale
        if self.max_side:
            scale = min(scale, self.max_side / max(size))
        resized = {
            s: transforms.resize_image(image, transforms.scaled_size(size, scale * s))
            for s in self.scales
        }
        views = (resized[s][:, ::-1] if m else resized[s] for s, m in self._each)
        return Prediction(image, tuple(views), tag)

    def _sides(self, image: Prediction, axis: int) -> list[tiles.Side]:
        return [
            tiles.Side(view.shape[axis], mirrored and axis == 1)
            for view, (_, mirrored) in zip(image.views, self._each, strict=True)
        ]

    def _window(
        self, span: tuple[int, int], size: int, side: tiles.Side
    ) -> tuple[int, int]:
        if span == (0, size):
            return 0, side.size
        return tiles.window(*span, size, side, self.reach)

    def cut(self, image: Prediction) -> list[Part]:
        """Cuts an image into parts, whose windows are no larger than a tile."""
        cuts, longest = [], []
        for axis, size in enumerate(image.image.shape[:2]):
            sides = self._sides(image, axis)
            spans = tiles.cut(size, sides, self.tile, self.reach)
            lengths = [max(stop - start for start, stop in spans)]
            for side in sides:
                windows = (self._window(span, size, side) for span in spans)
                lengths.append(max(stop - start for start, stop in windows))
            cuts.append(spans)
            longest.append(map(_round, lengths))
        canvas, *canvases = (
            sharding.canvas(self.mesh, size) for size in zip(*longest, strict=True)
        )
        return [
            Part(image, rows, columns, canvas, tuple(canvases))
            for rows in cuts[0]
            for columns in cuts[1]
        ]

    def stack(
        self, parts: Sequence[Part], number: int, batch_size: int
    ) -> dict[str, Any]:
        """What the network is to see of a view of some parts of the same kind.

        Args:
            parts: at most ``batch_size``; places without one hold one black pixel.
            number: of the view.
            batch_size: B.

        Returns:
            "image", the windows, uint8 [B,h,w,3]; "size", their extents in it, int32
            [B,2]; "at", where in their windows the parts' rows and columns are, see
            ``upsampling.sample``, or None where they are the windows.
        """
        pixels = np.zeros((batch_size, *parts[0].canvases[number], 3), np.uint8)
        sizes = np.ones((batch_size, 2), np.int32)
        at = [
            (np.zeros((batch_size, n), np.int32), np.zeros((batch_size, n), np.float32))
            for n in parts[0].canvas
        ]
        for i, part in enumerate(parts):
            window = []
            for axis, span in enumerate((part.rows, part.columns)):
                side = self._sides(part.of, axis)[number]
                size = part.of.image.shape[axis]
                start, stop = self._window(span, size, side)
                cells, fractions = tiles.positions(*span, size, side)
                at[axis][0][i, : len(cells)] = cells - start
                at[axis][1][i, : len(cells)] = fractions
                window.append(slice(start, stop))
            view = part.of.views[number][tuple(window)]
            pixels[i, : view.shape[0], : view.shape[1]] = view
            sizes[i] = view.shape[:2]
        # At the image's own scale, the logits are those of every pixel already.
        return {"image": pixels, "size": sizes, "at": None if parts[0].plain else at}


def _round(size: int) -> int:
    """A canvas for a size: at most eight in an octave, so that few are compiled for."""
    step = max(64, 2 ** (math.floor(math.log2(size)) - 3))
    return -(-size // step) * step
