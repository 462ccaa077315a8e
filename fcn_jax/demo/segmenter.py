"""What the page asks for: pictures from files, and views of their classes."""

import html
import io
import os
import pathlib
import zipfile

import numpy as np

from fcn_jax.data import images
from fcn_jax.evaluation import predictor, trained
from fcn_jax.reporting import colors

_LEAST_SIDE = 640  # Smaller pictures are shown enlarged by a whole factor.


class Segmenter:
    """Reads pictures, segments them one at a time, and draws what was found."""

    def __init__(self, run: trained.Trained, *, max_side: int):
        """Sets up the network.

        Args:
            run: network, classes and palette.
            max_side: longest side, in pixels, at which pictures are shown; larger ones
                are shrunk first.
        """
        self._run, self._max_side = run, max_side
        self._predictor = predictor.Predictor(run)

    def segment(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the picture in a file, RGB uint8 [h, w, 3], and its classes.

        Those are uint8 [h, w] ids, or of a multilabel network [h, w, C] of 0 and 1.

        Raises:
            UserError: If it is no picture that can be read.
        """
        file = pathlib.Path(path)
        image = images.read_image(
            file.read_bytes(),
            file.name,
            exif="apply",
            intensity_range=self._run.config.data.intensity_range,
        )
        longest = max(image.shape[:2])
        if longest > self._max_side:
            height, width = (
                max(1, round(n * self._max_side / longest)) for n in image.shape[:2]
            )
            picture = images.Image.fromarray(image)
            image = np.asarray(picture.resize((width, height), images.Image.BOX))
        return image, self._predictor([image])[0]

    def overlay(self, image: np.ndarray, ids: np.ndarray, opacity: float) -> np.ndarray:
        """Returns the picture under the colours of its classes; small ones enlarged."""
        mixed = colors.overlay(image, ids, self._run.palette, opacity)
        factor = max(1, _LEAST_SIDE // max(ids.shape[:2]))
        return mixed.repeat(factor, 0).repeat(factor, 1)

    def legend(self, ids: np.ndarray) -> str:
        """Returns the classes of a picture, the largest first, as an HTML table."""
        size = ids.shape[0] * ids.shape[1]
        if ids.ndim == 3:
            areas = (ids == 1).sum((0, 1))
        else:
            areas = np.bincount(ids.ravel(), minlength=256)
        rows = "".join(
            f'<tr><td><i style="background: {_css(self._run.palette[i])}"></i></td>'
            f"<td>{html.escape(name)}</td><td>{areas[i] / size:.1%}</td></tr>"
            for i, name in sorted(
                enumerate(self._run.class_names), key=lambda pair: -areas[pair[0]]
            )
            if areas[i]
        )
        rows = rows or "<tr><td>No class was found.</td></tr>"
        return f'<table class="legend" aria-label="Classes and areas">{rows}</table>'

    def save(self, ids: np.ndarray, folder: str) -> str:
        """Writes the mask to a folder: a palette PNG, or a ZIP of one a class."""
        if ids.ndim == 2:
            path = os.path.join(folder, "mask.png")
            colors.save_mask(path, ids, self._run.palette)
            return path
        path = os.path.join(folder, "masks.zip")
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(ids.shape[2]):
                file = io.BytesIO()
                images.Image.fromarray(ids[..., i] * 255).save(file, "PNG")
                archive.writestr(f"mask_{i:02}.png", file.getvalue())
        return path


def _css(colour: np.ndarray) -> str:
    return "#" + bytes(colour.tolist()).hex()
