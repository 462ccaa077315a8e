"""Sentences about checkpoints that cannot be read or written."""

import contextlib
import gc
import io
import json
import logging
from collections.abc import Iterator

from etils import epath
from orbax.checkpoint import v1 as ocp

from fcn_jax.errors import UserError

_FULL_DISK = ("No space left on device", "Disk quota exceeded", "File too large")


@contextlib.contextmanager
def naming(checkpointer: ocp.training.Checkpointer, step: int) -> Iterator[None]:
    """Turns what reading a damaged checkpoint raises into a sentence that names it."""
    try:
        with quiet():
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
def naming_full_disk(folder: epath.Path) -> Iterator[None]:
    """Turns what any library raises of a full disk into a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = [m for m in _FULL_DISK if m in f"{error!s} {error.__cause__!s}"]
        if not full:
            raise
        raise UserError(
            f"{folder} could not be written ({full[0]}); the checkpoints that are "
            "finished are kept: make room, and start the same command again."
        ) from error


@contextlib.contextmanager
def naming_bad_scores(folder: epath.Path) -> Iterator[None]:
    """Turns what opening a folder with unreadable scores raises into a sentence."""
    try:
        yield
    except json.JSONDecodeError as error:
        newest = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
        raise UserError(
            f"The scores of a checkpoint in {folder} cannot be read ({error}); move "
            f"the damaged one out of the way, most likely the newest, {newest}."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what Orbax and its threads print of damage, many lines beside the error."""
    logging.disable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                yield
            finally:
                gc.collect()  # Tasks tell of their errors when they go.
    finally:
        logging.disable(logging.NOTSET)
