"""A run's log: metrics.jsonl, TensorBoard and the line on the console."""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import numpy as np
import tensorboardX
from etils import epath

from fcn_jax import remote

# Seconds between two writes of metrics.jsonl to an object store, which takes a new
# object each time, and no more than about one a second of the same name.
_STORE_SECONDS = 30


class RunLog:
    """Writes metrics.jsonl and tensorboard/ into a run's folder.

    A resumed run goes on where its checkpoint ends: what was logged after it, or half
    written when the run was killed, is dropped, so that every step stands there once.
    Use it as a context manager.

    In an object store (``gs://``) nothing can be appended to, so the lines are written
    anew every half minute, and TensorBoard's events are gathered on the local disk;
    what `flush` has returned from is kept.

    Args:
        workdir: The run's folder, which may be a URL; is made if it is missing.
        resume_step: The step of the checkpoint; 0 starts anew.
    """

    def __init__(self, workdir: os.PathLike | str, *, resume_step: int = 0):
        workdir = epath.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        if remote.is_url(workdir):
            self._lines = _StoredLines(path, resume_step)
            self._board = _StoredBoard(workdir / "tensorboard", resume_step + 1)
        else:
            self._lines = _LocalLines(path, resume_step)
            self._board = tensorboardX.SummaryWriter(
                str(workdir / "tensorboard"), purge_step=resume_step + 1
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def flush(self) -> None:
        """Writes all that was logged; to be called before a checkpoint is saved."""
        self._lines.flush()
        self._board.flush()

    def close(self) -> None:
        """Writes all that was logged and closes the files."""
        self._lines.close()
        self._board.close()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Logs numbers by name; what is None or not finite is null in the file."""
        values = {name: _number(value) for name, value in values.items()}
        self._lines.add(json.dumps({"step": step} | values) + "\n")
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Logs pictures, RGB uint8 [h, w, 3], by name, to TensorBoard alone."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")


class _LocalLines:
    """Lines that are appended to a file."""

    def __init__(self, path: epath.Path, resume_step: int):
        if path.exists():
            # All or nothing: a run that is killed here keeps its log.
            part = path.with_name(path.name + ".part")
            part.write_text("".join(_lines_until(resume_step, path)))
            part.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self.flush, self.close = self._file.flush, self._file.close

    def add(self, line: str) -> None:
        self._file.write(line)
        # A run that is killed must leave what it had logged.
        self._file.flush()


class _StoredLines:
    """Lines of an object: kept here, since only the whole of it can be written."""

    def __init__(self, path: epath.Path, resume_step: int):
        self._path = path
        self._lines = _lines_until(resume_step, path) if path.exists() else []
        self.flush()

    def add(self, line: str) -> None:
        self._lines.append(line)
        if time.monotonic() > self._written + _STORE_SECONDS:
            self.flush()

    def flush(self) -> None:
        # It appears when it is whole, so there is no need for another name.
        self._path.write_text("".join(self._lines))
        self._written = time.monotonic()

    close = flush


class _StoredBoard:
    """TensorBoard's events, each flush an object of its own.

    tensorboardX can write to gs:// by itself, but keeps all events of the run in
    memory, and writes all of them again every two minutes.
    """

    def __init__(self, folder: epath.Path, purge_step: int):
        self._folder, self._purge_step = folder, purge_step
        self._temporary = tempfile.TemporaryDirectory(prefix="fcn_jax-")
        self._count, self._writer = 0, None

    def flush(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        for path in epath.Path(self._temporary.name).iterdir():
            (self._folder / path.name).write_bytes(path.read_bytes())
            path.unlink()

    def close(self) -> None:
        self.flush()
        self._temporary.cleanup()

    def __getattr__(self, name: str) -> Callable:
        """Of the writer, such as add_scalar, which is made when there are events."""
        if self._writer is None:
            self._count += 1
            self._writer = tensorboardX.SummaryWriter(
                self._temporary.name,
                purge_step=self._purge_step if self._count == 1 else None,
                # TensorBoard reads the files of a run in the order of their names.
                filename_suffix=f".{self._count:06}",
            )
        return getattr(self._writer, name)


def _number(value: float | None) -> int | float | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _lines_until(step: int, path: epath.Path) -> list[str]:
    """Returns a log's lines, less those of later steps and a torn last one."""
    kept = []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return kept


class Progress:
    """Composes the line on the console: step, scalars, images/s and what remains.

    Args:
        total_steps: Steps of the whole run.
        batch_size: Images in a step.
        start_step: The step that the run starts from.
        clock: Returns seconds.
    """

    def __init__(
        self,
        total_steps: int,
        batch_size: int,
        start_step: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._start_step = self._last_step = start_step
        self._clock = clock
        self._last_time = clock()
        self._paused = 0.0  # Seconds, since the start.
        self._paused_before = 0.0  # Of those, before the last line.

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps what is done in this context, evaluation say, out of images/s."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - start

    def line(
        self, step: int, scalars: Mapping[str, float], steps_per_epoch: float
    ) -> str:
        """Returns the line for ``step``.

        Images/s are those since the last line. The time that remains has the pauses in
        it, at the rate at which there were some so far.
        """
        now = self._clock()
        paused = self._paused - self._paused_before
        seconds = max(now - self._last_time - paused, 1e-9)
        steps = step - self._last_step
        parts = [
            f"step {step}/{self._total_steps}",
            f"epoch {step / steps_per_epoch:.1f}",
            *(f"{name} {_short(value)}" for name, value in scalars.items()),
        ]
        if steps > 0:
            rate = steps * self._batch_size / seconds
            each = seconds / steps + self._paused / (step - self._start_step)
            parts.append(f"{rate:.{0 if rate >= 100 else 1}f} images/s")
            parts.append(f"ETA {duration((self._total_steps - step) * each)}")
        self._last_step, self._last_time = step, now
        self._paused_before = self._paused
        return "  ".join(parts)


def _short(value: float) -> str:
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Returns seconds in the two largest units that they fill, as "2h 05m"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    if seconds < 24 * 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // (24 * 3600)}d {seconds % (24 * 3600) // 3600:02d}h"
