"""Fills the disk of a run, a small tmpfs, in the middle of its saves.

python benchmarks/disk_full.py (as root, for the mount)

It fails unless the run ends with one sentence, the checkpoints before are whole, and
the same command, after room was made, ends bit for bit as an undisturbed run.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from soak import ROOT, outcome, saves, unfinished

SETTINGS = {"num_steps": 60, "checkpoint_every": 5, "eval_every": 60}


def command(workdir: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """A small run; what it needs besides the workdir lies on another disk."""
    settings = SETTINGS | {
        "init_from": "",
        "batch_size": 4,
        "log_every": 5,
        "augment.crop": (32, 32),
        "model.width": 0.125,
        "data.dir": folder / "data",
        "compilation_cache": folder / "cache",
    }
    return [
        sys.executable,
        "run_train.py",
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]


def run(args: list[str], **kwargs) -> subprocess.CompletedProcess:
    """Runs a command to its end."""
    return subprocess.run(args, cwd=ROOT, text=True, capture_output=True, **kwargs)


def main() -> None:
    """Prints what happened, step by step."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    if os.geteuid() != 0:
        sys.exit("This mounts a small tmpfs, which takes root; start it with sudo.")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="disk_full"))
    small = folder / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)], check=True)
    try:
        run(command(folder / "undisturbed", folder), check=True)
        workdir = small / "run"
        process = subprocess.Popen(
            command(workdir, folder),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(saves(workdir)) < 2:  # Two are whole before the disk is full.
            if process.poll() is not None:
                sys.exit("The run ended too soon: " + process.communicate()[1])
            time.sleep(0.01)
        filler = small / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(2**16))
                    file.flush()
            except OSError as error:
                print(f"filled: {error.strerror}")
        _, errors = process.communicate()
        kept, half = saves(workdir), len(unfinished(workdir))
        sentence = [line for line in errors.splitlines() if line.startswith("Error")]
        print(f"exit code {process.returncode}, whole saves {kept}, half {half}")
        print("\n".join(sentence) or errors)
        filler.unlink()
        again = run(command(workdir, folder))
        print(f"after room was made: exit code {again.returncode}")
        print("\n".join(x for x in again.stdout.splitlines() if "Resuming" in x))
        a, b = (
            outcome(w, SETTINGS["num_steps"]) for w in (folder / "undisturbed", workdir)
        )
        same = a[0] == b[0] and all(map(np.array_equal, a[1], b[1]))
        print(f"final state and log {'bit-equal' if same else 'DIFFERENT'}")
        told = process.returncode == 1 and len(sentence) == 1
        sys.exit(0 if told and same and again.returncode == 0 else 1)
    finally:
        run(["umount", str(small)])
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
