"""A run's log: metrics.jsonl, TensorBoard and the line on the console."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import numpy as np
import tensorboardX


class RunLog:
    """Writes metrics.jsonl and tensorboard/ into a run's folder.

    A resumed run goes on where its checkpoint ends: what was logged after it, or half
    written when the run was killed, is dropped, so that every step stands there once.
    Use it as a context manager.

    Args:
        workdir: The run's folder; is made if it is missing.
        resume_step: The step of the checkpoint; 0 starts anew.
    """

    def __init__(self, workdir: os.PathLike | str, *, resume_step: int = 0):
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        _drop_after(path, resume_step)
        self._lines = path.open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=resume_step + 1
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._board.close()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Logs numbers by name; what is None or not finite is null in the file."""
        values = {name: _number(value) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step} | values) + "\n")
        # A run that is killed must leave what it had logged.
        self._lines.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Logs pictures, RGB uint8 [h, w, 3], by name, to TensorBoard alone."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")


def _number(value: float | None) -> int | float | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Drops the lines of later steps and a torn last one; all or nothing."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    part = path.with_name(path.name + ".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)


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
