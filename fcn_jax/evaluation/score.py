"""Scores a checkpoint, or published weights, on a split of its data."""

import datetime
import json
import pathlib
import platform
import shlex
import sys
import time
from importlib import metadata
from typing import Any

import jax
import ml_collections
from etils import epath

from fcn_jax import processes
from fcn_jax.data import datasets
from fcn_jax.errors import UserError
from fcn_jax.evaluation import collector, evaluate, trained
from fcn_jax.reporting import report as report_lib
from fcn_jax.reporting import report_content
from fcn_jax.training import checkpoints, inputs, resume


def evaluate_run(
    run: trained.Trained, split: str, folder: epath.PathLike, *, report: bool = False
) -> tuple[dict[str, Any], epath.Path]:
    """Scores a checkpoint and writes ``eval_<split>_<step>.json`` to a folder.

    Args:
        run: the checkpoint.
        split: its name; "" for the validation split of the training.
        folder: for the file.
        report: whether the folder gets a ``report.html``, too.

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
    return _score(run, dataset, split, folder, report)


def evaluate_weights(
    config: ml_collections.ConfigDict,
    split: str,
    folder: epath.PathLike,
    mesh: jax.sharding.Mesh | None = None,
    *,
    report: bool = False,
) -> tuple[dict[str, Any], epath.Path]:
    """Scores ``config.init_from`` and writes ``eval_<split>_<its name>.json``.

    Args:
        config: describes the network, the weights and the data.
        split: its name; "" for ``config.data.val_split``.
        folder: for the file, made if need be.
        mesh: see ``trained.load``.
        report: see ``evaluate_run``.

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
    run, loaded = trained.from_weights(
        config, weights, dataset.class_names, dataset.palette, mesh
    )
    processes.say("\n".join(filter(None, (loaded, warning))))
    return _score(run, dataset, split, folder, report)


def _score(
    run: trained.Trained,
    dataset: datasets.Dataset,
    split: str,
    folder: epath.PathLike,
    report: bool,
) -> tuple[dict[str, Any], epath.Path]:
    began, folder = time.monotonic(), epath.Path(folder)
    resume.require_same_classes(run.class_names, dataset.class_names)
    evaluator = evaluate.make_evaluator(run.config, run.model, dataset, split, run.mesh)
    images, visit = None, None
    if report:
        report_lib.require_libraries()
        images = collector.Collector(
            len(dataset.class_names), multilabel=dataset.multilabel
        )
        visit = images.visit
    scores, _ = evaluator(run.variables, visit=visit)
    path = folder / f"eval_{split}_{run.name}.json"
    if processes.is_main():
        if report:
            scores |= images.boundaries.scores(dataset.class_names)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")  # Whole or not at all.
        part.write_text(json.dumps(scores, indent=2) + "\n")
        part.replace(path)
        if report:
            content = report_content.Content(
                title=folder.name or str(folder),
                split=split,
                checkpoint=run.name,
                class_names=dataset.class_names,
                palette=dataset.palette,
                scores=scores,
                counts=evaluator.counts,
                mean_ious=images.mean_ious,
                best=images.best(),
                worst=images.worst(),
                metrics=report_lib.read_metrics(folder),
                config=resume.flatten(json.loads(run.config.to_json_best_effort())),
                provenance=_provenance(
                    run, split, scores["num_images"], time.monotonic() - began
                ),
            )
            report_lib.write(folder / report_lib.NAME, content)
    return scores, path


def _provenance(
    run: trained.Trained, split: str, num_images: int, seconds: float
) -> dict[str, str]:
    """Where the scores come from."""
    data = run.config.data
    packages = ("jax", "flax", "numpy", "fcn-jax")
    devices = jax.devices()
    return {
        "Command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "Checkpoint": run.name,
        "Trained on": ", ".join(run.trained_on),
        "Data": f"{data.name}, split {split} of {num_images} images"
        + (f", from {data.source}" if data.source else ""),
        "Date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Duration": f"{seconds:.0f} s",
        "Devices": f"{len(devices)} x {devices[0].device_kind}, in "
        f"{jax.process_count()} process{'es' * (jax.process_count() > 1)}",
        "Versions": ", ".join(f"{p} {metadata.version(p)}" for p in packages)
        + f", Python {platform.python_version()}",
        "Code": processes.code_version(),
    }
