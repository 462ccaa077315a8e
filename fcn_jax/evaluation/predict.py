"""Masks and overlays of a person's own images."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
import tqdm
from etils import epath

from fcn_jax import processes, sharding
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
    """Segments images of any size, one on every part of the mesh at a time."""

    def __init__(self, run: trained.Trained, *, max_side: int = 0):
        """Sets up the prediction.

        Args:
            run: network and preprocessing.
            max_side: longest side, in pixels, at which images are worked on; longer
                ones are shrunk and their logits resized back. 0: no limit.
        """
        self._run, self._max_side = run, max_side
        self.batch_size = sharding.num_parts(run.mesh)
        self._predict = jax.jit(
            lambda variables, image, size, out_size, canvas: evaluate.predict(
                run.model,
                sharding.whole(variables, run.mesh),
                image,
                size,
                out_size,
                canvas,
            ),
            static_argnames="canvas",
            out_shardings=sharding.of_batch(run.mesh, 3),
        )

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """RGB uint8 [h,w,3], at most ``batch_size`` -> class ids uint8 [h,w] of each.

        With several processes, all of them must have all the images.
        """
        own = [image.shape[:2] for image in images]
        sizes = [transforms.scaled_size(n, self._scale(n)) for n in own]
        canvas, out_canvas = self._canvas(sizes), self._canvas(own)
        # Places without an image hold one of one pixel.
        empty = [(1, 1)] * (self.batch_size - len(images))
        padded = np.zeros((self.batch_size, *canvas, 3), np.uint8)
        for place, image, (h, w) in zip(padded, images, sizes, strict=False):
            place[:h, :w] = transforms.resize_image(image, (h, w))
        # At the images' own scale, the logits are those of every pixel already.
        out_sizes = None if sizes == own else np.asarray(own + empty, np.int32)
        batch = (padded, np.asarray(sizes + empty, np.int32), out_sizes)
        ids = self._predict(
            self._run.variables,
            *sharding.put(
                batch,
                jax.tree.map(
                    lambda x: sharding.of_batch(self._run.mesh, x.ndim), batch
                ),
            ),
            out_canvas,
        )
        ids = sharding.gather(ids)
        return [ids[i, :h, :w] for i, (h, w) in enumerate(own)]

    def _scale(self, size: tuple[int, int]) -> float:
        scale = self._run.config.data.image_scale
        return min(scale, self._max_side / max(size)) if self._max_side else scale

    def _canvas(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """What holds images of these sizes, of the few sizes that are compiled for."""
        largest = np.max(sizes, axis=0).tolist()
        return sharding.canvas(
            self._run.mesh, tuple(-(-n // CANVAS_STEP) * CANVAS_STEP for n in largest)
        )


def predict_files(
    run: trained.Trained,
    paths: Iterable[epath.Path],
    output: epath.PathLike,
    *,
    max_side: int = 0,
) -> Iterator[str]:
    """Writes ``<stem>_mask.png`` and ``<stem>_overlay.png`` for every image.

    The mask is a palette PNG of class ids at the image's own size, upright as a
    viewer shows the photo (an EXIF rotation is applied). Several processes all read
    the images, and share the writing.

    Args:
        run: network, class names and palette.
        paths: image files.
        output: folder to write to, made if need be.
        max_side: see ``Predictor``.

    Yields:
        One sentence for each file that is no readable image; the others go on.
    """
    output, waiting = epath.Path(output), list(paths)
    predictor = Predictor(run, max_side=max_side)
    with tqdm.tqdm(
        total=len(waiting),
        desc="predicting",
        unit="image",
        disable=not processes.is_main(),
    ) as progress:
        while waiting:
            batch = waiting[: predictor.batch_size]
            waiting = waiting[predictor.batch_size :]
            found = {}
            for path in batch:
                try:
                    found[path] = images.read_image(
                        path.read_bytes(), str(path), exif="apply"
                    )
                except UserError as error:
                    yield str(error)
            if found:
                _write(run, output, found, predictor(list(found.values())))
            progress.update(len(batch))


def _write(
    run: trained.Trained,
    output: epath.Path,
    found: dict[epath.Path, np.ndarray],
    predictions: list[np.ndarray],
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    each = zip(found.items(), predictions, strict=True)
    for (path, image), ids in itertools.islice(each, *processes.share()):
        colors.save_mask(output / f"{path.stem}_mask.png", ids, run.palette)
        colors.save_image(
            output / f"{path.stem}_overlay.png",
            colors.overlay(image, ids, run.palette),
        )
