"""Checkpoints: the two latest and the best by mIoU, each with all that one needs.

A checkpoint has two parts, ``model`` (parameters and batch statistics) and
``training`` (step and optimizer state), so that evaluation reads the first alone. Its
metadata hold the config, the class names and the palette.
"""

import contextlib
import gc
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from fcn_jax.errors import UserError
from fcn_jax.training import state as state_lib

FOLDER = "checkpoints"
CONFIG_FILE = "config.json"

_FULL_DISK = ("No space left on device", "Disk quota exceeded", "File too large")

_keep = ocp.training.preservation_policies


@contextlib.contextmanager
def open_folder(
    workdir: epath.PathLike, *, write: bool
) -> Iterator[ocp.training.Checkpointer]:
    """The checkpoints of a run; leaving the context waits for unfinished saves.

    Only a writer removes what a kill left of a save: to a reader it may be the save
    that a training run is at.
    """
    with ocp.training.Checkpointer(
        epath.Path(workdir).resolve() / FOLDER,
        # Whether to save is decided by the training loop.
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=_keep.AnyPreservationPolicy(
            [
                _keep.LatestN(2),  # Should the latest be damaged.
                _keep.BestN(
                    get_metric_fn=lambda metrics: metrics["mean_iou"],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        ),
        cleanup_tmp_directories=write,
    ) as checkpointer:
        yield checkpointer


def metadata(
    config: ml_collections.ConfigDict, class_names, palette, *, mean, std, trained_on
) -> dict[str, Any]:
    """What travels with a checkpoint, as JSON types.

    The mean and the standard deviation that the network uses are those of the config,
    or where that leaves them open, of the weights that it started from. ``trained_on``
    has the data sets and splits of this training and of those before it.
    """
    return {
        "trained_on": list(trained_on),
        "mean": list(mean),
        "std": list(std),
        "config": json.loads(config.to_json_best_effort()),
        "class_names": list(class_names),
        "palette": [[int(v) for v in colour] for colour in palette],
    }


def save(
    checkpointer: ocp.training.Checkpointer,
    state: state_lib.TrainState,
    *,
    mean_iou: float | None,
    metadata: dict[str, Any],
) -> None:
    """Starts saving the state; returns once the arrays are copied.

    Raises:
        UserError: a full disk, now or at the save before.
    """
    with _naming_full_disk(checkpointer):
        checkpointer.save_checkpointables_async(
            int(state.step),
            {
                "model": state.variables,
                "training": {"step": state.step, "opt_state": state.opt_state},
            },
            metrics=None if mean_iou is None else {"mean_iou": mean_iou},
            custom_metadata=metadata,
            force=True,
        )


def wait(checkpointer: ocp.training.Checkpointer) -> None:
    """Waits for a save that was started; raises UserError as ``save``."""
    with _naming_full_disk(checkpointer):
        checkpointer.wait()


def restore(
    checkpointer: ocp.training.Checkpointer, step: int, like: state_lib.TrainState
) -> state_lib.TrainState:
    """Loads a whole state; ``like`` holds its shapes, types and shardings.

    Raises:
        UserError: the checkpoint is damaged.
    """
    with _naming_damage(checkpointer, step):
        loaded = checkpointer.load_checkpointables(
            step,
            {
                "model": like.variables,
                "training": {"step": like.step, "opt_state": like.opt_state},
            },
        )
    return like.replace(**loaded["model"], **loaded["training"])


def read_metadata(checkpointer: ocp.training.Checkpointer, step: int) -> dict[str, Any]:
    """The metadata that a checkpoint was saved with."""
    with _naming_damage(checkpointer, step):
        return _complete(checkpointer.checkpointables_metadata(step).custom_metadata)


def _complete(metadata: dict[str, Any]) -> dict[str, Any]:
    """Adds what runs did not save before there were other weights to start from."""
    model, data = metadata["config"]["model"], metadata["config"]["data"]
    return {
        "mean": model["mean"],
        "std": model["std"],
        "trained_on": [f"{data['name']}/{data['train_split']}"],
    } | metadata


def write_config(workdir: epath.PathLike, config: ml_collections.ConfigDict) -> None:
    """Writes ``config.json``, for people; the checkpoints carry their own copy."""
    workdir = epath.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(json.loads(config.to_json_best_effort()), indent=2)
    (workdir / CONFIG_FILE).write_text(text + "\n")


def mean_iou_of(checkpointer: ocp.training.Checkpointer, step: int) -> float:
    """The validation mean IoU that a scored checkpoint was saved with."""
    metrics = {c.step: c.metrics for c in checkpointer.checkpoints}
    return metrics[step]["mean_iou"]


def restore_variables(
    checkpointer: ocp.training.Checkpointer, step: int, like: dict
) -> dict:
    """Loads parameters and batch statistics only.

    Raises:
        UserError: the checkpoint is damaged.
    """
    with _naming_damage(checkpointer, step):
        return checkpointer.load_checkpointables(step, {"model": like})["model"]


@contextlib.contextmanager
def _naming_damage(checkpointer: ocp.training.Checkpointer, step: int):
    """Turns what reading a damaged checkpoint raises into a sentence that names it."""
    try:
        with _quiet():
            yield
    except (KeyError, TypeError, ValueError, OSError) as error:
        others = [c.step for c in checkpointer.checkpoints if c.step != step]
        names = " or ".join(f"--step={other}" for other in others)
        raise UserError(
            f"The checkpoint {checkpointer.directory / str(step)} is damaged "
            f"({type(error).__name__}); "
            + (f"use {names} instead." if others else "there is no other one.")
        ) from error


@contextlib.contextmanager
def _naming_full_disk(checkpointer: ocp.training.Checkpointer):
    """Turns what a save on a full disk raises into a sentence."""
    try:
        yield
    except Exception as error:
        full = [m for m in _FULL_DISK if m in f"{error!s} {error.__cause__!s}"]
        if not full:
            raise
        raise UserError(
            f"The checkpoint could not be written to {checkpointer.directory} "
            f"({full[0]}); the ones before it are kept: make room, and start the same "
            "command again."
        ) from error


def read_folder(path: epath.PathLike) -> tuple[dict, dict[str, Any]]:
    """One checkpoint's variables, nested NumPy arrays, and its metadata.

    Args:
        path: the folder of one step, wherever it lies.

    Raises:
        UserError: it is no whole checkpoint of a run.
    """
    path = epath.Path(path).resolve()
    try:
        with _quiet():
            return _read_folder(path)
    except (KeyError, TypeError, ValueError, OSError) as e:
        raise UserError(
            f"{path} is no workdir, and no whole checkpoint of one or a damaged one "
            f"({type(e).__name__}); give the folder of a run of run_train.py, or "
            f"{FOLDER}/N in it."
        ) from e


def _read_folder(path: epath.Path) -> tuple[dict, dict[str, Any]]:
    if not (path / "model").exists():
        raise FileNotFoundError
    found = ocp.checkpointables_metadata(path)
    metadata = _complete(found.custom_metadata)
    like = jax.tree.map(
        lambda leaf: np.empty(leaf.shape, leaf.dtype),
        found.metadata["model"],
        is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )
    return ocp.load_checkpointables(path, {"model": like})["model"], metadata


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what Orbax and its threads print of damage, many lines beside the error."""
    logging.disable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
            gc.collect()  # Tasks tell of their errors when they go.
    finally:
        logging.disable(logging.NOTSET)


def find_step(checkpointer: ocp.training.Checkpointer, which: str) -> int:
    """The step that ``best``, ``latest`` or a number means.

    Raises:
        UserError: there is no such checkpoint; names those that exist.
    """
    checkpoints = checkpointer.checkpoints
    steps = [c.step for c in checkpoints]
    if which == "latest":
        return steps[-1]
    scored = [c for c in checkpoints if c.metrics]
    if which == "best":
        if not scored:
            raise UserError(
                f"--step=best: no checkpoint in {checkpointer.directory} was scored; "
                f"use one of {steps} or latest."
            )
        return max(scored, key=lambda c: c.metrics["mean_iou"]).step
    if not which.isdigit() or int(which) not in steps:
        raise UserError(
            f"--step={which}: {checkpointer.directory} holds no such checkpoint; "
            f"use best, latest or one of {steps}."
        )
    return int(which)


def require_checkpoints(workdir: epath.PathLike, field: str = "--workdir") -> None:
    """Raises UserError unless the workdir holds a finished checkpoint."""
    if not has_checkpoints(workdir):
        raise UserError(
            f"{field}={workdir} holds no checkpoint; give the folder of a run of "
            "run_train.py that has saved one."
        )


def has_checkpoints(workdir: epath.PathLike) -> bool:
    """Whether the workdir holds a finished checkpoint."""
    folder = epath.Path(workdir) / FOLDER
    return folder.exists() and any(p.name.isdigit() for p in folder.iterdir())


def abstract(tree: Any, shardings: Any) -> Any:
    """A tree's shapes and types, placed by a tree of shardings."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(
            x.shape, jnp.dtype(x.dtype), sharding=sharding
        ),
        tree,
        shardings,
    )
