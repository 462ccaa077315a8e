"""Masks and overlays of a person's own images."""

from collections.abc import Iterable, Iterator

import jax
import numpy as np
import tqdm
from etils import epath

from fcn_jax.data import folder, images, transforms
from fcn_jax.errors import UserError
from fcn_jax.evaluation import evaluate, trained
from fcn_jax.reporting import colors

# Canvases are multiples of this, so that photos of similar size share a program.
CANVAS_STEP = 64


def find_images(path: epath.PathLike) -> list[epath.Path]:
    """The image, or the images in the folder (not below it), by name.

    Raises:
        UserError: there is none, or two would write the same output files.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"--input={path} does not exist; give an image or a folder.")
    if not path.is_dir():
        return [path]
    found = sorted(
        p for p in path.iterdir() if p.suffix.lower() in folder.IMAGE_SUFFIXES
    )
    if not found:
        raise UserError(
            f"--input={path} holds no images; give an image, or a folder with files "
            f"that end in {', '.join(folder.IMAGE_SUFFIXES)}."
        )
    by_stem = {}
    for p in found:
        if p.stem in by_stem:
            raise UserError(
                f"--input: {by_stem[p.stem].name} and {p.name} would both write "
                f"{p.stem}_mask.png; rename one of them."
            )
        by_stem[p.stem] = p
    return found


class Predictor:
    """Segments single images of any size."""

    def __init__(self, run: trained.Trained, *, max_side: int = 0):
        """Sets up the prediction.

        Args:
            run: network and preprocessing.
            max_side: longest side, in pixels, at which images are worked on; longer
                ones are shrunk and their logits resized back. 0: no limit.
        """
        self._run, self._max_side = run, max_side
        self._predict = jax.jit(
            lambda variables, image, size, out_size, canvas: evaluate.predict(
                run.model, variables, image, size, out_size, canvas
            ),
            static_argnames="canvas",
        )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """RGB uint8 [h,w,3] -> class ids uint8 [h,w]."""
        own = image.shape[:2]
        scale = self._run.config.data.image_scale
        if self._max_side:
            scale = min(scale, self._max_side / max(own))
        size = transforms.scaled_size(own, scale)
        image = transforms.resize_image(image, size)
        canvas = [-(-n // CANVAS_STEP) * CANVAS_STEP for n in size]
        padded = np.zeros((1, *canvas, 3), np.uint8)
        padded[0, : size[0], : size[1]] = image
        # At the images' own scale, the logits are those of every pixel already.
        out_size = None if size == tuple(own) else np.asarray([own], np.int32)
        out_canvas = tuple(-(-n // CANVAS_STEP) * CANVAS_STEP for n in own)
        ids = self._predict(
            self._run.variables,
            padded,
            np.asarray([size], np.int32),
            out_size,
            out_canvas,
        )
        return np.asarray(ids)[0, : own[0], : own[1]]


def predict_files(
    run: trained.Trained,
    paths: Iterable[epath.Path],
    output: epath.PathLike,
    *,
    max_side: int = 0,
) -> Iterator[str]:
    """Writes ``<stem>_mask.png`` and ``<stem>_overlay.png`` for every image.

    The mask is a palette PNG of class ids at the image's own size, upright as a
    viewer shows the photo (an EXIF rotation is applied).

    Args:
        run: network, class names and palette.
        paths: image files.
        output: folder to write to, made if need be.
        max_side: see ``Predictor``.

    Yields:
        One sentence for each file that is no readable image; the others go on.
    """
    output = epath.Path(output)
    predictor = Predictor(run, max_side=max_side)
    for path in tqdm.tqdm(list(paths), desc="predicting", unit="image"):
        try:
            image = images.read_image(path.read_bytes(), str(path), exif="apply")
        except UserError as error:
            yield str(error)
            continue
        ids = predictor(image)
        output.mkdir(parents=True, exist_ok=True)
        colors.save_mask(output / f"{path.stem}_mask.png", ids, run.palette)
        colors.save_image(
            output / f"{path.stem}_overlay.png",
            colors.overlay(image, ids, run.palette),
        )
