"""Going on with a run: from which checkpoint, and what must be as it was."""

import json
from collections.abc import Sequence
from typing import Any

import fsspec
import ml_collections
from etils import epath

from fcn_jax import remote
from fcn_jax.errors import UserError
from fcn_jax.training import checkpoints

SET_ASIDE = "set_aside"

# Fields that may change when a run goes on: they leave its outcome as it is.
OPERATIONAL = (
    "data.dir",
    "data.num_threads",
    "data.num_workers",
    "checkpoint_every",
    "compilation_cache",
    "eval_every",
    "eval_batch_size",
    "log_every",
    "mesh.data",
    "mesh.fsdp",
    "mesh.spatial",
    "num_overlays",
    "thresholds",
    "weights_cache",
)


def find(workdir: epath.PathLike, step: str) -> tuple[int, dict[str, Any] | None]:
    """Number and metadata of the checkpoint to go on from; writes nothing.

    Args:
        workdir: of the run.
        step: ``latest``, or a step's number.

    Returns:
        0 and None where there is no checkpoint.

    Raises:
        UserError: no such step, or the checkpoint is damaged.
    """
    if not checkpoints.has_checkpoints(workdir):
        if step != "latest":
            checkpoints.require_checkpoints(workdir)
        return 0, None
    with checkpoints.open_folder(workdir, write=False) as checkpointer:
        number = checkpoints.find_step(checkpointer, step)
        return number, checkpoints.read_metadata(checkpointer, number)


def set_aside_after(workdir: epath.PathLike, step: int) -> list[epath.Path]:
    """Moves later checkpoints out of the way of a run that goes on from ``step``."""
    folder, aside = (
        epath.Path(workdir) / checkpoints.FOLDER,
        epath.Path(workdir) / SET_ASIDE,
    )
    moved = []
    for path in folder.iterdir() if folder.exists() else ():
        # What is unfinished is removed by Orbax.
        if checkpoints.is_finished(path) and int(path.name) > step:
            aside.mkdir(exist_ok=True)
            there = aside.iterdir() if aside.exists() else ()  # No folders in a store.
            i = sum(p.name.split("-")[0] == path.name for p in there)
            target = aside / (f"{path.name}-{i}" if i else path.name)
            _move(path, target)
            moved.append(target)
    return moved


def _move(path: epath.Path, target: epath.Path) -> None:
    """Renames a checkpoint; in an object store its files are copied, then removed."""
    if not remote.is_url(path):
        path.rename(target)
        return
    files, source = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
    mark = f"{source}/{checkpoints.COMMIT_FILE}"
    # The mark of a whole checkpoint comes last, and goes first.
    for name in sorted(files.find(source), key=lambda n: n == mark):
        files.cp_file(name, str(target) + name.removeprefix(source))
    files.rm_file(mark)
    files.rm(source, recursive=True)


def require_same_config(
    saved: dict[str, Any], config: ml_collections.ConfigDict
) -> None:
    """Raises UserError naming the fields in which a resumed run differs."""
    a, b = flatten(saved), flatten(json.loads(config.to_json_best_effort()))
    differing = [
        f"{name} ({a.get(name)!r} there, {b.get(name)!r} now)"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name) and name not in OPERATIONAL
    ]
    if differing:
        raise UserError(
            "The workdir holds a checkpoint of another run, which differs in "
            f"{', '.join(differing)}; choose another --workdir, or the same settings."
        )


def require_same_classes(saved: Sequence[str], now: Sequence[str]) -> None:
    """Raises UserError unless a checkpoint and a data set have the same classes."""
    if list(saved) != list(now):
        raise UserError(
            f"The checkpoint is for the classes {', '.join(saved)}, the data set has "
            f"{', '.join(now)}; restore the data it was trained on, or train anew."
        )


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted names."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
