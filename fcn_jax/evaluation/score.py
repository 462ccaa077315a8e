"""Scores a checkpoint, or published weights, on a split of its data."""

import json
from typing import Any

import jax
import ml_collections
from etils import epath

from fcn_jax import processes
from fcn_jax.data import datasets
from fcn_jax.errors import UserError
from fcn_jax.evaluation import evaluate, trained
from fcn_jax.training import checkpoints, inputs, resume


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
    dataset = inputs.load_dataset(run.config, (split,))
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
    dataset = inputs.load_dataset(config, (split,))
    run, report = trained.from_weights(
        config, weights, dataset.class_names, dataset.palette, mesh
    )
    processes.say("\n".join(filter(None, (report, warning))))
    return _score(run, dataset, split, folder)


def _score(run: trained.Trained, dataset: datasets.Dataset, split: str, folder):
    resume.require_same_classes(run.class_names, dataset.class_names)
    evaluator = evaluate.make_evaluator(run.config, run.model, dataset, split, run.mesh)
    scores, _ = evaluator(run.variables)
    path = epath.Path(folder) / f"eval_{split}_{run.name}.json"
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(scores, indent=2) + "\n")
    return scores, path
