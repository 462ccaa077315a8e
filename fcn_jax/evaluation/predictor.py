"""A network on images of any size: batches, tiles, scales and mirror images."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fcn_jax import sharding
from fcn_jax.errors import UserError
from fcn_jax.evaluation import tiles, trained
from fcn_jax.evaluation.views import Part, Prediction, Views
from fcn_jax.models import receptive_field, upsampling

_WAITING = 4  # Batches whose images may wait for others of their size.


class Predictor:
    """Segments images of any size, those of similar size in one batch.

    Attributes:
        batch_size: images, or tiles, at a time, on all devices together.
        tile: largest side that is worked on at once; 0: any.
        on_part: is called with an image whenever a part of it is done.
    """

    def __init__(
        self,
        run: trained.Trained,
        *,
        max_side: int = 0,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        tile: int = 0,
        batch_size: int = 0,
        probabilities: np.dtype | type | None = None,
    ):
        """Sets up the prediction.

        Args:
            run: network and preprocessing.
            max_side: longest side, in pixels, at which images are worked on; longer
                ones are shrunk and their logits resized back. 0: no limit.
            scales: factors on that size; the probabilities that the network gives at
                each are averaged.
            flip: average over the mirrored image, too.
            tile: images whose sides are longer are worked on in overlapping tiles of
                at most this size, with the same result. 0: always whole.
            batch_size: is made a multiple of the parts that the mesh splits a batch
                into. 0: one image a part.
            probabilities: dtype in which they are wanted, in 0-1 for floats and in
                0 to the largest value for integers; None: they are not.

        Raises:
            UserError: values that make no sense.
        """
        _check(max_side=max_side, tile=tile, batch_size=batch_size)
        if not scales or not all(0 < s < 100 for s in scales):
            raise UserError(
                f"--scales={','.join(map(str, scales))} must be factors above 0, such "
                "as 0.75,1,1.25."
            )
        reach = receptive_field.reach(run.model)
        margin = receptive_field.margin(run.model)
        if tile and tile < tiles.smallest_tile(margin):
            raise UserError(
                f"--tile={tile} is too small: the scores of this network depend on "
                f"pixels up to {max(reach)} away, so that a tile has a margin of "
                f"{margin}; use {tiles.smallest_tile(margin)} or more."
            )
        parts = sharding.num_parts(run.mesh)
        self.batch_size = max(1, -(-batch_size // parts)) * parts
        self.tile = tile
        self.on_part: Callable[[Prediction], None] = lambda image: None
        self._run = run
        self._views = Views(
            run.mesh,
            run.config.data.image_scale,
            max_side,
            tuple(scales),
            flip,
            tile,
            reach,
        )
        self._dtype = None if probabilities is None else np.dtype(probabilities)
        step = functools.partial(
            _step, run, num_views=len(self._views), wanted=self._dtype is not None
        )
        self._step = jax.jit(step, static_argnames="last")

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """RGB uint8 [h,w,3] -> class ids uint8 [h,w], or masks [h,w,C], of each.

        With several processes, all of them must have all the images.
        """
        numbers = range(len(images))
        found = self.stream(map(self.prepare, images, numbers))
        found = {prediction.tag: prediction.ids for prediction in found}
        return [found[i] for i in numbers]

    def prepare(self, image: np.ndarray, tag: Any = None) -> Prediction:
        """Makes what ``stream`` takes of an image; needs time, but no device.

        Args:
            image: RGB, uint8 [h,w,3].
            tag: anything, to know it by.
        """
        return self._views.prepare(image, tag)

    def stream(self, images: Iterable[Prediction]) -> Iterator[Prediction]:
        """Segments images as they come; a batch is in work while another is fetched.

        Args:
            images: what ``prepare`` returned; in the same order in all processes.

        Yields:
            The same, with ``ids`` and ``probabilities``, in an order that depends on
            their sizes.
        """
        before = None
        for parts in self._batches(images):
            batch = parts, self._start(parts)
            if before:
                yield from self._finish(*before)
            before = batch
        if before:
            yield from self._finish(*before)

    def _batches(self, images: Iterable[Prediction]) -> Iterator[list[Part]]:
        """Groups parts of the same kind, of which only a few may wait for more."""
        waiting = collections.defaultdict(list)
        for image in images:
            parts = self._views.cut(image)
            image.remaining = len(parts)
            for part in parts:
                group = waiting[part.kind]
                group.append(part)
                if len(group) == self.batch_size:
                    yield waiting.pop(part.kind)
            if sum(map(len, waiting.values())) >= _WAITING * self.batch_size:
                yield waiting.pop(max(waiting, key=lambda kind: len(waiting[kind])))
        yield from waiting.values()

    def _start(self, parts: list[Part]) -> tuple[jax.Array, jax.Array | None]:
        """Sends a batch on its way through the network; see ``_step``."""
        mesh, total = self._run.mesh, None
        for number in range(len(self._views)):
            batch = self._views.stack(parts, number, self.batch_size)
            where = jax.tree.map(lambda x: sharding.of_batch(mesh, x.ndim), batch)
            batch, last = sharding.put(batch, where), number == len(self._views) - 1
            total = self._step(self._run.variables, total, batch, last=last)
        return total

    def _finish(
        self, parts: list[Part], found: tuple[jax.Array, jax.Array | None]
    ) -> Iterator[Prediction]:
        """Fetches a batch; yields the images of which nothing more is to come."""
        ids, probabilities = jax.tree.map(sharding.gather, found)
        for i, part in enumerate(parts):
            image, size = part.of, part.of.image.shape[:2]
            own = tuple(slice(s.stop - s.start) for s in part.place)
            if image.ids is None:
                image.ids = np.empty((*size, *ids.shape[3:]), np.uint8)
            image.ids[part.place] = ids[i][own]
            if probabilities is not None:
                if image.probabilities is None:
                    shape = *size, probabilities.shape[3]
                    image.probabilities = np.empty(shape, self._dtype)
                stored = _stored(probabilities[i][own], self._dtype)
                image.probabilities[part.place] = stored
            image.remaining -= 1
            self.on_part(image)
            if not image.remaining:
                image.views = ()
                yield image


def _step(run, variables, total, batch, *, num_views, last, wanted):
    """Adds a view to what the others gave; at the last, the result of all.

    Args:
        run: network and task.
        variables: of the network.
        total: float32 [B,H,W,C], None at the first.
        batch: see ``Views.stack``.
        num_views: of each image.
        last: whether it is the last view.
        wanted: whether probabilities are.

    Returns:
        ``total``; at the last view the predictions, uint8 [B,H,W] or [B,H,W,C], and
        the probabilities, float32 [B,H,W,C], or None.
    """

    def split(x: jax.Array) -> jax.Array:
        where = sharding.of_batch(run.mesh, x.ndim)
        return jax.lax.with_sharding_constraint(x, where)

    variables = sharding.whole(variables, run.mesh)
    scores = run.model.apply(variables, batch["image"], batch["size"])
    if batch["at"] is not None:
        scores = upsampling.sample(scores, *batch["at"])
    if num_views > 1:
        scores = run.task.probabilities(scores) / num_views
        scores = scores if total is None else total + scores
    if not last:
        return split(scores)
    if num_views > 1:
        ids = run.task.from_probabilities(scores)
    else:
        ids = run.task.classify(scores)
        scores = run.task.probabilities(scores)
    return split(ids), split(scores) if wanted else None


def _stored(probabilities: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Probabilities as floats, or as integers of which the largest is 1."""
    if dtype.kind == "f":
        return probabilities.astype(dtype)
    return np.rint(probabilities * np.iinfo(dtype).max).astype(dtype)


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise UserError(f"--{name}={value} must be 0 or more.")
