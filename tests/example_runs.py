"""Settings of a tiny run, and how to start one as a user does."""

import pathlib
import subprocess
import sys

from configs import default
from fcn_jax.evaluation import score as score_lib
from fcn_jax.evaluation import trained

ROOT = pathlib.Path(__file__).parents[1]
CLASSES = ["ground", "house", "tree"]


def tiny_settings(folder):
    """Overrides, as on the command line, for seconds on one core."""
    return {
        "init_from": "",
        "data.name": "folder",
        "data.source": str(folder / "source"),
        "data.dir": str(folder / "data"),
        "data.num_threads": 1,
        "augment.crop": (32, 32),
        "augment.scale": (1.0, 3.0),
        "model.depth": 11,
        "model.width": 0.03125,
        "model.batch_norm": True,
        "model.score_init": "lecun_normal",  # Predictions differ from the first step.
        "optimizer.name": "adam",
        "optimizer.learning_rate": 0.003,
        "optimizer.warmup_steps": 2,
        "batch_size": 2,
        "eval_batch_size": 2,
        "num_steps": 6,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
        "num_overlays": 2,
        "compilation_cache": "",
    }


def tiny_config(folder, **changes):
    config = default.get_config()
    config.update_from_flattened_dict(
        tiny_settings(folder) | {k.replace("__", "."): v for k, v in changes.items()}
    )
    return config


def score(workdir, split="val"):
    """What run_eval.py does with a workdir."""
    run = trained.load(workdir, "latest")
    return score_lib.evaluate_run(run, split, workdir)


def flags(settings):
    return [f"--config.{name}={value}" for name, value in settings.items()]


def run(script, *args):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
