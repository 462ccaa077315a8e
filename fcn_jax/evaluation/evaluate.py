"""Counts right and wrong pixels of a whole split, at the masks' own sizes."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from fcn_jax import processes, sharding
from fcn_jax.data import datasets, pipeline, transforms
from fcn_jax.evaluation import tasks
from fcn_jax.models import fcn, upsampling


def logits(model: fcn.FCN, variables: dict, image, size, out_size, canvas) -> jax.Array:
    """The scores of every pixel.

    Args:
        model: a network.
        variables: its parameters and statistics.
        image: uint8 [B,h,w,3].
        size: int [B,2], the images' extents in it.
        out_size: int [B,2], sizes that the logits are resized to, bilinearly; None
            where they are ``size``.
        canvas: static (H, W) that holds every out size.

    Returns:
        float32 [B,H,W,C]; outside ``out_size`` it means nothing.
    """
    scores = model.apply(variables, image, size)
    if out_size is not None:
        scores = upsampling.resize(scores, size, out_size, canvas)
    return scores


class Evaluator:
    """Scores variables on one split; compiled once, used at every evaluation.

    Attributes:
        counts: int64, those of the latest evaluation, see ``Task.count``.
    """

    def __init__(
        self,
        model: fcn.FCN,
        dataset: datasets.Dataset,
        split: str,
        *,
        task: tasks.Task,
        mesh: jax.sharding.Mesh,
        batch_size: int,
        image_scale: float = 1.0,
        num_workers: int = 0,
        num_threads: int = 2,
    ):
        """Sets up the evaluation.

        Args:
            model: scores ``len(dataset.class_names)`` classes.
            dataset: labels in its own ids.
            split: name of the split to score.
            task: what the logits mean.
            mesh: all devices; they share every batch.
            batch_size: images at a time, on all devices together; is made a multiple
                of the parts that the mesh splits a batch into.
            image_scale: factor on the images; the logits are resized to the masks.
            num_workers: processes that read; 0 for threads only.
            num_threads: threads that read.

        Raises:
            UserError: no such split.
        """
        self._dataset, self._split, self._mesh = dataset, dataset.split(split), mesh
        self._task = task
        parts = sharding.num_parts(mesh)
        batch_size = -(-batch_size // parts) * parts
        largest = self._split.max_size
        label_canvas = sharding.canvas(mesh, largest)
        self._stream = {
            "batch_size": batch_size,
            "canvas": sharding.canvas(
                mesh, transforms.scaled_size(largest, image_scale)
            ),
            "label_canvas": label_canvas,
            "image_scale": image_scale,
            "num_workers": num_workers,
            "num_threads": num_threads,
            "places": sharding.own_examples(mesh, batch_size),
            "num_masks": dataset.num_masks,
        }
        of_masks = sharding.of_batch(mesh, 4 if task.multilabel else 3)

        @jax.jit(out_shardings=(sharding.replicated(mesh), of_masks))
        def step(variables, batch):
            scores = logits(
                model,
                sharding.whole(variables, mesh),
                batch["image"],
                batch["size"],
                None if image_scale == 1 else batch["label_size"],
                label_canvas,
            )
            return task.count(batch["label"], scores), task.classify(scores)

        self._step = step

    def __call__(
        self,
        variables: dict,
        *,
        keep: Collection[int] = (),
        visit: Callable[[int, dict, np.ndarray], None] | None = None,
    ) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
        """Scores the split.

        Args:
            variables: see ``logits``.
            keep: numbers of the images whose predictions are wanted.
            visit: is called in the main process with the number of each image, its
                record and its prediction, of its own size; to be given in all
                processes or none.

        Returns:
            The scores, see ``Task.scores``, and the wanted predictions by number,
            uint8 [H,W] or [H,W,C], of at least the largest height and width of the
            split.
        """
        num_images, batch_size = len(self._split.source), self._stream["batch_size"]
        # One batch is in work while the counts of the one before are fetched.
        total, waiting, kept = 0, None, {}
        batches = pipeline.eval_batches(self._split.source, **self._stream)
        with tqdm.tqdm(
            total=num_images,
            desc="evaluating",
            unit="image",
            leave=False,
            disable=not processes.is_main(),
        ) as progress:
            batches = sharding.to_devices(batches, self._mesh, batch_size)
            for i, batch in enumerate(batches):
                counts, predictions = self._step(variables, batch)
                if waiting is not None:
                    total += np.asarray(waiting, np.int64)
                waiting = counts
                numbers = range(i * batch_size, min((i + 1) * batch_size, num_images))
                wanted = set(keep) & set(numbers)
                if wanted or visit:
                    rows = sharding.gather(predictions)
                    kept |= {n: rows[n - numbers.start] for n in wanted}
                if visit:
                    sizes = sharding.gather(batch["label_size"])
                    for n, row, (h, w) in zip(numbers, rows, sizes, strict=False):
                        if processes.is_main():
                            visit(n, self._split.source[n], row[:h, :w])
                progress.update(len(numbers))
            total += np.asarray(waiting, np.int64)
        if total.sum() != self._split.num_labelled:
            raise AssertionError(
                f"Scored {total.sum()} pixels of {self._split.num_labelled} labelled "
                "ones."
            )
        self.counts = total
        scores = self._task.scores(
            total, self._dataset.class_names, num_images=num_images
        )
        return scores, kept


def make_evaluator(
    config: ml_collections.ConfigDict,
    model: fcn.FCN,
    dataset: datasets.Dataset,
    split: str,
    mesh: jax.sharding.Mesh,
) -> Evaluator:
    """An evaluator with a config's settings."""
    return Evaluator(
        model,
        dataset,
        split,
        task=tasks.make(config.task, len(dataset.class_names), config.thresholds),
        mesh=mesh,
        batch_size=config.eval_batch_size,
        image_scale=config.data.image_scale,
        num_workers=config.data.num_workers,
        num_threads=config.data.num_threads,
    )
