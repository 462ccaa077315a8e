"""Checkpoints: the two latest and the best by mIoU, each with all that one needs.

A checkpoint has two parts, ``model`` (parameters and batch statistics) and
``training`` (step and optimizer state), so that evaluation reads the first alone. Its
metadata hold the config, the class names and the palette.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from fcn_jax import remote
from fcn_jax.errors import UserError
from fcn_jax.training import damage, older_runs
from fcn_jax.training import state as state_lib

FOLDER = "checkpoints"
CONFIG_FILE = "config.json"
COMMIT_FILE = "commit_success.txt"  # Orbax's, in object stores alone.

_keep = ocp.training.preservation_policies


@contextlib.contextmanager
def open_folder(
    workdir: epath.PathLike, *, write: bool
) -> Iterator[ocp.training.Checkpointer]:
    """The checkpoints of a run; leaving the context waits for unfinished saves.

    Only a writer removes what a kill left of a save: to a reader it may be the save
    that a training run is at.
    """
    folder = remote.absolute(workdir) / FOLDER
    with damage.naming_bad_scores(folder):
        checkpointer = _open(folder, write)
    # What runs beside a save that fails may fail first: the log, a picture.
    with damage.naming_full_disk(folder), checkpointer:
        yield checkpointer


def _open(folder: epath.Path, write: bool) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
        folder,
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
    )


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
    parts = _parts(state)
    checksums = {name: state_lib.checksum(part) for name, part in parts.items()}
    with damage.naming_full_disk(checkpointer.directory):
        checkpointer.save_checkpointables_async(
            int(state.step),
            parts,
            metrics=None if mean_iou is None else {"mean_iou": mean_iou},
            custom_metadata=metadata | {"checksums": checksums},
            force=True,
        )


def _parts(state: state_lib.TrainState) -> dict[str, Any]:
    return {
        "model": state.variables,
        "training": {"step": state.step, "opt_state": state.opt_state},
    }


def wait(checkpointer: ocp.training.Checkpointer) -> None:
    """Waits for a save that was started; raises UserError as ``save``."""
    with damage.naming_full_disk(checkpointer.directory):
        checkpointer.wait()


def restore(
    checkpointer: ocp.training.Checkpointer, step: int, like: state_lib.TrainState
) -> state_lib.TrainState:
    """Loads a whole state; ``like`` holds its shapes, types and shardings.

    Raises:
        UserError: the checkpoint is damaged.
    """
    loaded = _load(checkpointer, step, _parts(like))
    return like.replace(**loaded["model"], **loaded["training"])


def read_metadata(checkpointer: ocp.training.Checkpointer, step: int) -> dict[str, Any]:
    """The metadata that a checkpoint was saved with."""
    with damage.naming(checkpointer, step):
        return older_runs.complete(
            checkpointer.checkpointables_metadata(step).custom_metadata
        )


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
    return _load(checkpointer, step, {"model": like})["model"]


def _load(
    checkpointer: ocp.training.Checkpointer, step: int, like: dict[str, Any]
) -> dict[str, Any]:
    """Loads parts of a checkpoint, and sees that no bit has changed since."""
    with damage.naming(checkpointer, step):
        loaded = checkpointer.load_checkpointables(step, like)
        metadata = checkpointer.checkpointables_metadata(step).custom_metadata
        return _checked(loaded, metadata)


def _checked(loaded: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """The parts of a checkpoint, if their checksums are those that were saved."""
    for name, checksum in metadata.get("checksums", {}).items():
        if name in loaded and state_lib.checksum(loaded[name]) != checksum:
            raise ValueError(f"The checksum of {name} is not {checksum}.")
    return loaded


def read_folder(path: epath.PathLike) -> tuple[dict, dict[str, Any]]:
    """One checkpoint's variables, nested NumPy arrays, and its metadata.

    Args:
        path: the folder of one step, wherever it lies.

    Raises:
        UserError: it is no whole checkpoint of a run.
    """
    path = remote.absolute(path)
    try:
        with damage.quiet():
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
    metadata = older_runs.complete(found.custom_metadata)
    like = jax.tree.map(
        lambda leaf: np.empty(leaf.shape, leaf.dtype),
        found.metadata["model"],
        is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )
    loaded = ocp.load_checkpointables(path, {"model": like})
    return _checked(loaded, metadata)["model"], metadata


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
    remote.require_usable(workdir, write=False)
    if not has_checkpoints(workdir):
        raise UserError(
            f"{field}={workdir} holds no checkpoint; give the folder of a run of "
            "run_train.py that has saved one."
        )


def has_checkpoints(workdir: epath.PathLike) -> bool:
    """Whether the workdir holds a finished checkpoint."""
    folder = epath.Path(workdir) / FOLDER
    return folder.exists() and any(map(is_finished, folder.iterdir()))


def is_finished(path: epath.Path) -> bool:
    """Whether a folder is a whole checkpoint: in a store, Orbax marks them at last."""
    whole = not remote.is_url(path) or (path / COMMIT_FILE).exists()
    return path.name.isdigit() and whole


def abstract(tree: Any, shardings: Any) -> Any:
    """A tree's shapes and types, placed by a tree of shardings."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(
            x.shape, jnp.dtype(x.dtype), sharding=sharding
        ),
        tree,
        shardings,
    )
