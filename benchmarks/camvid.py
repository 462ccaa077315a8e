"""How accurate: settings tried on CamVid's validation split, one training run each.

    python -m benchmarks.camvid --source=CAMVID          # the rows for this machine
    python -m benchmarks.camvid --source=CAMVID --only final --seeds 0
    python -m benchmarks.camvid --source=CAMVID --jobs=2           # half the cores each

CAMVID is in VOC layout. A row is one run of run_train.py from random weights: the
scores of the validation split after its last step (not the best on the way), the
seconds of the whole command, and how many cores it had. On a CPU, a search and, with
three seeds, an ablation of a small network and configs/camvid.py; on a GPU,
configs/camvid_vgg16.py with three seeds, and its ablation. Rows that the JSON file has
already are not run again, so an interrupted search goes on: remove what is outdated.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from benchmarks import measure

ROOT = pathlib.Path(__file__).parents[1]
SEEDS = (0, 1, 2)
SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")


class Setting(NamedTuple):
    """What a row runs: a config, and fields that differ from it."""

    group: str  # Rows of a group are compared with each other.
    config: str
    changes: Mapping[str, Any] = {}
    seeds: tuple[int, ...] = (0,)


# The common point of the search: small enough for ten epochs in minutes on one core.
BASE = {
    "init_from": "",
    "data.name": "folder",
    "data.image_scale": 0.5,
    "augment.crop": (180, 240),
    "augment.scale": (0.75, 1.75),
    "model.depth": 11,
    "model.width": 0.25,
    "model.batch_norm": True,
    "batch_size": 4,
    "eval_batch_size": 4,
    "num_steps": 1000,
    "eval_every": 1000,
    "checkpoint_every": 1000,
    "loss.class_weights": "",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 1e-2,
    "optimizer.warmup_steps": 50,
}


def _tried(
    group: str, seeds: tuple[int, ...] = (0,), **rows: Mapping[str, Any]
) -> dict[str, Setting]:
    """Settings that differ from the common point."""
    return {
        name: Setting(group, "configs/default.py", BASE | changes, seeds)
        for name, changes in rows.items()
    }


SETTINGS = {
    **_tried("search", SEEDS, base={}),
    **_tried(
        "search",
        median_frequency={"loss.class_weights": "median_frequency"},
        dice={"loss.dice": 1.0},
        rate_3e3={"optimizer.learning_rate": 3e-3},
        dropout_01={"model.dropout": 0.1},
        little_scaling={"augment.scale": (0.9, 1.3)},
        dice_dropout_01={"loss.dice": 1.0, "model.dropout": 0.1},
        dice_dropout_01_roots={
            "loss.dice": 1.0,
            "model.dropout": 0.1,
            "loss.class_weights": "root_median_frequency",
        },
    ),
    **_tried(
        "network",
        full_resolution={"data.image_scale": 1.0, "augment.scale": (0.5, 1.25)},
        wider={"model.width": 0.375, "num_steps": 565},
        deeper={"model.depth": 16, "num_steps": 575},
        no_batch_norm={"model.batch_norm": False},
    ),
    **_tried(
        "ablation",
        SEEDS,
        fcn32s={"model.stride": 32},
        fcn16s={"model.stride": 16},
        learned={"model.upsampling": "learned"},
    ),
    "final": Setting("final", "configs/camvid.py", seeds=SEEDS),
}

_VGG16 = "configs/camvid_vgg16.py"
GPU_SETTINGS = {
    "vgg16": Setting("final", _VGG16, seeds=SEEDS),
    "vgg16_fcn32s": Setting("ablation", _VGG16, {"model.stride": 32}),
    "vgg16_fcn16s": Setting("ablation", _VGG16, {"model.stride": 16}),
    "vgg16_learned": Setting("ablation", _VGG16, {"model.upsampling": "learned"}),
}
ALL = SETTINGS | GPU_SETTINGS


def run(name: str, seed: int, source: str, cores: set[int]) -> dict:
    """Trains one setting with one seed on the given cores; returns its row."""
    setting = ALL[name]
    with tempfile.TemporaryDirectory() as workdir:
        command = [
            *("taskset", "--cpu-list", ",".join(map(str, sorted(cores)))),
            sys.executable,
            "run_train.py",
            f"--config={setting.config}",
            f"--workdir={workdir}/run",
            f"--config.data.source={source}",
            f"--config.seed={seed}",
            *(f"--config.{k}={_text(v)}" for k, v in setting.changes.items()),
        ]
        start = time.monotonic()
        code, printed = _follow(command, f"{name}, seed {seed}")
        seconds = time.monotonic() - start
        if code:
            raise SystemExit(f"{name}, seed {seed}:\n{printed[-2000:]}")
        log = pathlib.Path(workdir, "run", "metrics.jsonl").read_text().splitlines()
        scores = [s for s in map(json.loads, log) if "val/mean_iou" in s]
        config = json.loads(pathlib.Path(workdir, "run", "config.json").read_text())
    last = scores[-1]
    row = {
        "name": name,
        "group": setting.group,
        "changes": {k: v for k, v in setting.changes.items() if BASE.get(k) != v},
        "seed": seed,
        "commit": measure.environment()["commit"],
        "cores": len(cores),
        "seconds": seconds,
        "images": last["step"] * config["batch_size"],
        "scores": {k: last[f"val/{k}"] for k in SCORES},
        "iou_per_class": {
            k.removeprefix("val_iou/"): v
            for k, v in last.items()
            if k.startswith("val_iou/")
        },
        "mean_iou_by_step": {s["step"]: s["val/mean_iou"] for s in scores},
    }
    print(
        f"{name}, seed {seed}: mean IoU {last['val/mean_iou']:.4f}, {seconds:.0f} s",
        flush=True,
    )
    return row


def _follow(command: list[str], title: str) -> tuple[int, str]:
    """Runs a command and passes its progress on; returns its code and its output."""
    printed = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            printed.append(line)
            if line.startswith("step "):
                print(f"{title}: {line}", end="", flush=True)
    return process.returncode, "".join(printed)


def _text(value: Any) -> str:
    return str(value).replace(" ", "")


def main() -> None:
    """Runs what is missing, a row at a time or several, and writes after each."""
    parser = measure.parser(__doc__, timed=False)
    parser.add_argument("--source", required=True, help="CamVid in VOC layout")
    here = SETTINGS if jax.default_backend() == "cpu" else GPU_SETTINGS
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(here))
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="default: three of base, ablation and final, one of others",
    )
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time")
    args = parser.parse_args()
    source = str(pathlib.Path(args.source).resolve())
    path = pathlib.Path(args.json) if args.json else None
    rows = json.loads(path.read_text())["rows"] if path and path.exists() else []
    have = {(row["name"], row["seed"]) for row in rows}
    missing = [
        (name, seed)
        for name in args.only
        for seed in args.seeds or ALL[name].seeds
        if (name, seed) not in have
    ]
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= args.jobs <= len(cores):
        parser.error(f"--jobs is {args.jobs}; this machine has {len(cores)} cores.")
    share = len(cores) // args.jobs
    free = [set(cores[i * share : (i + 1) * share]) for i in range(args.jobs)]
    lock = threading.Lock()

    def work(name: str, seed: int) -> None:
        with lock:
            mine = free.pop()
        try:
            row = run(name, seed, source, mine)
        finally:
            with lock:
                free.append(mine)
        with lock:
            rows.append(row)
            measure.write(args.json, rows)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(work, *job) for job in missing]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        finally:  # After a failure, what has not begun stays undone.
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
