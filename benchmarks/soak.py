"""Kills a training run again and again, and compares its end with an undisturbed one.

python benchmarks/soak.py [--kills=20] [--processes=1] [--steps=2200] [--seed=0]

Every third kill comes the moment that a save has begun; the others at random moments,
start-up and compilation included. After each, the same command is started again. It
fails unless every start goes on from the last finished save, and the final checkpoint
and the log are, bit for bit, those of the undisturbed run.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
    "init_from": "",
    "batch_size": 4,
    "eval_batch_size": 4,
    "checkpoint_every": 10,
    "eval_every": 800,
    "log_every": 1,
    "augment.crop": (32, 32),
    "model.width": 0.0625,
    "model.batch_norm": True,
    "num_overlays": 1,
}


class Run:
    """One start of the command: all its processes."""

    started: list[subprocess.Popen] = []

    def __init__(self, workdir: pathlib.Path, folder: pathlib.Path, processes: int):
        settings = SETTINGS | {
            "data.dir": folder / "data",
            "compilation_cache": folder / "cache",
        }
        command = [
            sys.executable,
            "run_train.py",
            "--config=configs/quickstart.py",
            f"--workdir={workdir}",
            "--heartbeat_timeout=10",
            "--connect_timeout=60",
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ]
        with socket.socket() as s:
            s.bind(("localhost", 0))
            port = s.getsockname()[1]
        several = [f"--coordinator=localhost:{port}", f"--num_processes={processes}"]
        self.lines, self.began = [], time.time()
        self.processes = [
            subprocess.Popen(
                command + (several + [f"--process_id={i}"] if processes > 1 else []),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
            )
            for i in range(processes)
        ]
        Run.started += self.processes
        self._readers = [
            threading.Thread(target=self._read, args=(p,)) for p in self.processes
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        """All that was printed."""
        return "".join(self.lines)

    @property
    def runs(self) -> bool:
        """Whether none of the processes has ended."""
        return all(p.poll() is None for p in self.processes)

    def wait(self, timeout: float) -> list[int]:
        """The exit codes, once all have ended by themselves."""
        codes = [p.wait(timeout) for p in self.processes]
        self.join()
        return codes

    def join(self) -> None:
        """Reads the rest of what was printed."""
        for reader in self._readers:
            reader.join()


def saves(workdir: pathlib.Path) -> list[int]:
    """The steps of the finished saves."""
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    return sorted(int(n) for n in names if n.isdigit())


def unfinished(workdir: pathlib.Path, older_than: float = math.inf) -> set[str]:
    """The names of the half-written saves, or those that were begun before a time."""
    found = set()
    for path in (workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"):
        with contextlib.suppress(FileNotFoundError):  # It may be done by now.
            if path.stat().st_ctime < older_than:
                found.add(path.name)
    return found


def resumed_at(output: str) -> int | None:
    """The step that a run went on from, None if it did not come so far."""
    found = re.search(r"Resuming .* at step (\d+)|Training from the start", output)
    return int(found[1] or 0) if found else None


def phase(output: str) -> str:
    """What the run was doing, by what it had printed."""
    steps = re.findall(r"^step (\d+)/", output, re.M)
    if steps:
        return f"step {steps[-1]}"
    return "compiling" if "Training from" in output or "Resuming" in output else "start"


def outcome(workdir: pathlib.Path, step: int) -> tuple[list, list]:
    """The log, and all arrays of the final checkpoint."""
    text = (workdir / "metrics.jsonl").read_text()
    path = workdir / "checkpoints" / str(step)
    shapes = ocp.checkpointables_metadata(path).metadata
    like = jax.tree.map(
        lambda x: np.empty(x.shape, x.dtype),
        {name: shapes[name] for name in ("model", "training")},
        is_leaf=lambda x: hasattr(x, "shape"),
    )
    arrays = jax.tree.leaves(ocp.load_checkpointables(path, like))
    return [json.loads(line) for line in text.splitlines()], arrays


def kill_once(run: Run, workdir, rng, *, during_save: bool, longest: float):
    """Waits for the moment, and kills one of the processes, which it returns."""
    end = time.monotonic() + rng.uniform(0.5, longest)
    while run.runs and time.monotonic() < end:
        time.sleep(0.005)
    while during_save and run.runs and not unfinished(workdir):
        time.sleep(0.0005)
    victim = rng.choice(run.processes)
    victim.kill()
    return victim


def check(run: Run, victim, before: list[int], left: set[str], workdir) -> list[str]:
    """What is wrong with a start that was killed, after saves and half-written ones."""
    victim.wait()
    wrong = []
    if victim.returncode not in (0, -signal.SIGKILL):
        wrong.append(f"it ended by itself: {run.output[-1000:]}")
    others = [p for p in run.processes if p is not victim]
    for code in (p.wait(150) for p in others):
        if code not in (1, 75, -signal.SIGABRT):
            wrong.append(f"another process ended with {code}")
    run.join()
    # Killed before all had connected, the others say how long they waited.
    if others and not re.search(r"died|waited|was lost", run.output):
        wrong.append("the others did not say why they ended")
    if (resumed := resumed_at(run.output)) is not None:
        last = before[-1] if before else 0
        if resumed != last:
            wrong.append(f"the last save was {last}, but it went on from {resumed}")
        if still := left & unfinished(workdir, older_than=run.began):
            wrong.append(f"half-written saves are left: {sorted(still)}")
    return wrong


def main() -> None:
    """Prints a line for each kill, and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2200, help="of the whole run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    SETTINGS["num_steps"] = args.steps
    folder = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    try:
        failures = soak(args, folder)
    finally:
        for process in Run.started:
            process.kill()  # None is left where this one fails.
        shutil.rmtree(folder)
    sys.exit("\n".join(failures) or 0)


def soak(args: argparse.Namespace, folder: pathlib.Path) -> list[str]:
    """Makes both runs; returns what went wrong."""
    rng = random.Random(args.seed)
    plain, workdir = folder / "undisturbed", folder / "killed"
    began = time.monotonic()
    run = Run(plain, folder, args.processes)
    if any(run.wait(1800)):
        return [run.output]
    took = time.monotonic() - began
    print(f"undisturbed: {args.steps} steps in {took:.0f} s", flush=True)

    print("kill  moment         save  went on from  reached  saved  lost")
    failures, lost_most, half_written = [], 0, 0
    before, left = [], set()
    # Long enough for a start and some saves; longer while there is no progress.
    longest = 12.0 * args.processes
    for kill in range(1, args.kills + 1):
        run = Run(workdir, folder, args.processes)
        victim = kill_once(
            run, workdir, rng, during_save=kill % 3 == 0, longest=longest
        )
        wrong = check(run, victim, before, left, workdir)
        saved, left = saves(workdir), unfinished(workdir)
        longest += 2.0 * args.processes if saved == before else 0
        before, last = saved, saved[-1] if saved else 0
        half_written += bool(left)
        reached = re.findall(r"^step (\d+)/", run.output, re.M)
        lost = max(int(reached[-1]) - last, 0) if reached else 0
        lost_most = max(lost_most, lost)
        # A save that is under way when the next is due is waited for.
        if lost > 2 * SETTINGS["checkpoint_every"]:
            wrong.append(f"lost {lost} steps")
        if victim.returncode == 0:
            wrong.append("the run was done before it; take more --steps")
        failures += [f"kill {kill}: {what}" for what in wrong]
        resumed = resumed_at(run.output)
        print(
            f"{kill:4d}  {phase(run.output):13}  {'yes' if left else 'no':4}  "
            f"{'-' if resumed is None else resumed:>12}  "
            f"{reached[-1] if reached else '-':>7}  {last:5d}  {lost:4d}",
            flush=True,
        )
    run = Run(workdir, folder, args.processes)
    if any(run.wait(1800)):
        return [*failures, run.output]
    if unfinished(workdir):
        failures.append("half-written saves are left")
    if saves(workdir) != saves(plain):
        failures.append(f"kept are {saves(workdir)}, not {saves(plain)}")
    (log_a, arrays_a), (log_b, arrays_b) = (
        outcome(w, args.steps) for w in (plain, workdir)
    )
    same = all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(arrays_a, arrays_b, strict=True)
    )
    print(
        f"{args.kills} kills, {half_written} of them with a save half written; at most "
        f"{lost_most} steps lost, a save every {SETTINGS['checkpoint_every']}; final "
        f"state {'bit-equal' if same else 'DIFFERENT'}, log "
        f"{'equal' if log_a == log_b else 'DIFFERENT'}; "
        f"{time.monotonic() - began:.0f} s"
    )
    if not same or log_a != log_b:
        failures.append("the end is not that of the undisturbed run")
    return failures


if __name__ == "__main__":
    main()
