"""Scores a network on a whole split, at the masks' own sizes."""

import json
from collections.abc import Collection
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from etils import epath

from fcn_jax import agreement, processes, sharding
from fcn_jax.data import datasets, labels, pipeline, transforms
from fcn_jax.errors import UserError
from fcn_jax.evaluation import metrics, trained
from fcn_jax.models import fcn, upsampling
from fcn_jax.training import checkpoints, resume


def predict(model: fcn.FCN, variables: dict, image, size, out_size, canvas):
    """The class of every pixel.

    Args:
        model: a network.
        variables: its parameters and statistics.
        image: uint8 [B,h,w,3].
        size: int [B,2], the images' extents in it.
        out_size: int [B,2], sizes that the logits are resized to, bilinearly; None
            where they are ``size``.
        canvas: static (H, W) that holds every out size.

    Returns:
        uint8 [B,H,W]; outside ``out_size`` it means nothing.
    """
    logits = model.apply(variables, image, size)
    if out_size is not None:
        logits = upsampling.resize(logits, size, out_size, canvas)
    return logits.argmax(-1).astype("uint8")


class Evaluator:
    """Scores variables on one split; compiled once, used at every evaluation."""

    def __init__(
        self,
        model: fcn.FCN,
        dataset: datasets.Dataset,
        split: str,
        *,
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
        }
        num_classes = len(dataset.class_names)

        @jax.jit(
            out_shardings=(sharding.replicated(mesh), sharding.of_batch(mesh, 3)),
        )
        def step(variables, batch):
            predictions = predict(
                model,
                sharding.whole(variables, mesh),
                batch["image"],
                batch["size"],
                None if image_scale == 1 else batch["label_size"],
                label_canvas,
            )
            counts = metrics.confusion(batch["label"], predictions, num_classes)
            return counts, predictions

        self._step = step

    def __call__(
        self, variables: dict, *, keep: Collection[int] = ()
    ) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
        """Scores the split.

        Args:
            variables: see ``predict``.
            keep: numbers of the images whose predictions are wanted.

        Returns:
            The scores, see ``metrics.scores``, and the wanted predictions by number,
            uint8 [H,W], of at least the largest height and width of the split.
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
                numbers = range(i * batch_size, (i + 1) * batch_size)
                if wanted := set(keep) & set(numbers):
                    rows = sharding.gather(predictions)
                    kept |= {n: rows[n - numbers.start] for n in wanted}
                progress.update(min(batch_size, num_images - numbers.start))
            total += np.asarray(waiting, np.int64)
        labelled = int(self._split.pixel_counts.sum())
        if total.sum() != labelled:
            raise AssertionError(
                f"Scored {total.sum()} pixels of {labelled} labelled ones."
            )
        scores = metrics.scores(total, self._dataset.class_names, num_images=num_images)
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
        mesh=mesh,
        batch_size=config.eval_batch_size,
        image_scale=config.data.image_scale,
        num_workers=config.data.num_workers,
        num_threads=config.data.num_threads,
    )


def load_dataset(
    data: ml_collections.ConfigDict, splits: Collection[str]
) -> datasets.Dataset:
    """The data set that a config's ``data`` names, with the splits that are wanted.

    The main process prepares it, if need be. The others then find it prepared, or where
    they have a disk of their own, prepare it there.

    Raises:
        UserError: as ``datasets.load``; or processes that have different data.
    """
    dataset = agreement.main_first(
        lambda: datasets.load(
            data.name,
            source=data.source,
            data_dir=data.dir,
            image_dir=data.image_dir,
            mask_dir=data.mask_dir,
            val_fraction=data.val_fraction,
            split_seed=data.split_seed,
            splits=splits,
            sbd_source=data.sbd_source,
        )
    )
    facts = {"class names": dataset.class_names}
    for name, split in dataset.splits.items():
        facts[f"number of images of {name}"] = len(split.source)
        facts[f"pixels of each class of {name}"] = split.pixel_counts.tolist()
    agreement.require_same(facts, "give all of them the same data")
    return dataset


def find_classes(data: ml_collections.ConfigDict) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names and the palette of a config's data, without PASCAL VOC's files.

    Raises:
        UserError: as ``load_dataset``, for other data than PASCAL VOC.
    """
    if data.name == "voc":
        return labels.VOC_CLASSES, labels.voc_palette()
    dataset = load_dataset(data, (data.val_split,))
    return dataset.class_names, dataset.palette


def evaluate_run(
    run: trained.Trained, split: str, folder: epath.PathLike
) -> tuple[dict[str, Any], epath.Path]:
    """Scores a checkpoint and writes ``eval_<split>_<step>.json`` to a folder.

    Args:
        run: the checkpoint.
        split: its name; "" for the validation split of the training.
        folder: for the file.

    Returns:
        The scores and the file.

    Raises:
        UserError: no such split, images that were trained on, or a data set that has
            changed classes.
    """
    split = split or run.config.data.val_split
    warning = datasets.require_no_leak(
        run.trained_on, f"{run.config.data.name}/{split}"
    )
    dataset = load_dataset(run.config.data, (split,))
    if warning:
        processes.say(warning)
    return _score(run, dataset, split, folder)


def evaluate_weights(
    config: ml_collections.ConfigDict,
    split: str,
    folder: epath.PathLike,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[dict[str, Any], epath.Path]:
    """Scores ``config.init_from`` and writes ``eval_<split>_<its name>.json``.

    Args:
        config: describes the network, the weights and the data.
        split: its name; "" for ``config.data.val_split``.
        folder: for the file, made if need be.
        mesh: see ``trained.load``.

    Returns:
        The scores and the file.

    Raises:
        UserError: as ``evaluate_run``; weights that are no whole network; or a folder
            that holds a run, whose scores these would seem to be.
    """
    if checkpoints.has_checkpoints(folder):
        raise UserError(
            f"{folder} holds a run; leave out --config to score that, or choose "
            "another --workdir for the scores of config.init_from."
        )
    split = split or config.data.val_split
    weights = trained.read_weights(config)
    warning = datasets.require_no_leak(
        weights.trained_on, f"{config.data.name}/{split}"
    )
    dataset = load_dataset(config.data, (split,))
    run, report = trained.from_weights(
        config, weights, dataset.class_names, dataset.palette, mesh
    )
    processes.say("\n".join(filter(None, (report, warning))))
    return _score(run, dataset, split, folder)


def _score(run: trained.Trained, dataset: datasets.Dataset, split: str, folder):
    resume.require_same_classes(run.class_names, dataset.class_names)
    evaluator = make_evaluator(run.config, run.model, dataset, split, run.mesh)
    scores, _ = evaluator(run.variables)
    path = epath.Path(folder) / f"eval_{split}_{run.name}.json"
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(scores, indent=2) + "\n")
    return scores, path
