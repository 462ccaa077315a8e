"""Kills a training run again and again, and compares its end with an undisturbed one.

python benchmarks/soak.py [--kills=20] [--processes=1] [--steps=1600] [--seed=0]

Every third kill comes the moment that a save has begun; the others at random moments,
start-up and compilation included. After each, the same command is started again. It
fails unless every start goes on from the last finished save, and the final checkpoint
and the log are, bit for bit, those of the undisturbed run.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
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
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ]
        with socket.socket() as s:
            s.bind(("localhost", 0))
            port = s.getsockname()[1]
        several = [f"--coordinator=localhost:{port}", f"--num_processes={processes}"]
        self.lines = []
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
        for reader in self._readers:
            reader.join()
        return codes


def saves(workdir: pathlib.Path) -> tuple[list[int], int]:
    """The steps of the finished saves, and how many unfinished ones there are."""
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    return sorted(int(n) for n in names if n.isdigit()), sum("tmp" in n for n in names)


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


def kill_once(run: Run, workdir, rng, *, during_save: bool, longest: float) -> None:
    """Waits for the moment, and kills one of the processes."""
    end = time.monotonic() + rng.uniform(0.5, longest)
    if during_save:
        # Let some training pass first, then wait for a save to begin.
        while run.runs and time.monotonic() < end:
            time.sleep(0.005)
        while run.runs and not saves(workdir)[1]:
            time.sleep(0.0005)
    while run.runs and time.monotonic() < end:
        time.sleep(0.005)
    rng.choice(run.processes).kill()


def main() -> None:
    """Prints a line for each kill, and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1600, help="of the whole run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    SETTINGS["num_steps"] = args.steps
    rng = random.Random(args.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    plain, workdir = folder / "undisturbed", folder / "killed"
    began = time.monotonic()
    run = Run(plain, folder, args.processes)
    assert not any(run.wait(1800)), run.output
    took = time.monotonic() - began
    print(f"undisturbed: {SETTINGS['num_steps']} steps in {took:.0f} s", flush=True)

    print("kill  moment         save  saved before  reached  resumed at  lost")
    failures, kills, lost_most, half_written = [], 0, 0, 0
    # Long enough for a start and some saves: there must be progress.
    longest = 12.0 * args.processes
    while kills < args.kills:
        run = Run(workdir, folder, args.processes)
        during_save = kills % 3 == 2
        kill_once(run, workdir, rng, during_save=during_save, longest=longest)
        before, unfinished = saves(workdir)
        codes = run.wait(120)
        if not any(codes):
            print("The run ended before it could be killed; take more steps.")
            break
        if args.processes > 1 and "died" not in run.output:
            failures.append(f"kill {kills}: the others did not say why they ended")
        kills += 1
        half_written += unfinished
        reached = re.findall(r"^step (\d+)/", run.output, re.M)
        # What the next start goes on from, told by starting it for a moment.
        run_again = Run(workdir, folder, args.processes)
        while run_again.runs and not re.search(
            r"Resuming .* at step|from the start", run_again.output
        ):
            time.sleep(0.01)
        found = re.search(r"Resuming .* at step (\d+)", run_again.output)
        resumed = int(found[1]) if found else 0
        rng.choice(run_again.processes).kill()
        run_again.wait(120)
        last = before[-1] if before else 0
        now = saves(workdir)[0]
        lost = int(reached[-1]) - resumed if reached else 0
        lost_most = max(lost_most, lost)
        if resumed < last or resumed not in now + [0]:
            failures.append(f"kill {kills}: saved {last}, but went on from {resumed}")
        # A step more may run than was printed while a save is under way.
        if lost > 2 * SETTINGS["checkpoint_every"]:
            failures.append(f"kill {kills}: lost {lost} steps")
        print(
            f"{kills:4d}  {phase(run.output):13}  {'yes' if unfinished else 'no':4}  "
            f"{last:12d}  {reached[-1] if reached else '-':>7}  {resumed:10d}  "
            f"{lost:4d}",
            flush=True,
        )
    run = Run(workdir, folder, args.processes)
    assert not any(run.wait(1800)), run.output
    if saves(workdir)[1]:
        failures.append("half-written saves are left")
    (log_a, arrays_a), (log_b, arrays_b) = (
        outcome(w, SETTINGS["num_steps"]) for w in (plain, workdir)
    )
    same = all(np.array_equal(a, b) for a, b in zip(arrays_a, arrays_b, strict=True))
    print(
        f"{kills} kills, {half_written} of them with a save half written; at most "
        f"{lost_most} steps lost, a save every {SETTINGS['checkpoint_every']}; final "
        f"state {'bit-equal' if same else 'DIFFERENT'}, log "
        f"{'equal' if log_a == log_b else 'DIFFERENT'}; "
        f"{time.monotonic() - began:.0f} s"
    )
    if not same or log_a != log_b:
        failures.append("the end is not that of the undisturbed run")
    shutil.rmtree(folder)
    sys.exit("\n".join(failures) or 0)


if __name__ == "__main__":
    main()
