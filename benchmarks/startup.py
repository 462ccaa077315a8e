"""What one waits for: the first step, the preparation of data, a checkpoint.

    python -m benchmarks.startup [--parts start prepare checkpoint] [--width 0.5]

start: seconds from the start of run_train.py (quick start, data prepared) to its first
step, with an empty compilation cache and with a filled one, which take turns with the
import of the training loop alone.
prepare: images/s of preparing a folder data set, and the generated one.
checkpoint: FCN-8s, VGG-16, 21 classes, with Adam's state of random numbers: how long a
save stops the training, of which the checksum is a part, when it is on disk, bytes,
seconds of loading from the system's cache; beside torch.save and torch.load of the same
arrays, which stop the training while they last. What was loaded is compared with what
was saved. The last needs PyTorch.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, peer_input
from fcn_jax.data import datasets
from fcn_jax.models import fcn
from fcn_jax.training import checkpoints, optim
from fcn_jax.training import state as state_lib

PARTS = ("start", "prepare", "checkpoint")
_ROOT = pathlib.Path(__file__).parents[1]
_METADATA = {"config": {}, "class_names": [], "palette": []}


def start(folder: pathlib.Path, rounds: int, width: float) -> list[dict]:
    """Seconds to the first step, cold and from the cache, and of the import."""
    del width
    caches = {"empty cache": folder / "none", "filled cache": folder / "filled"}
    seconds = {name: [] for name in caches}
    imports = []
    first_step(folder, caches["filled cache"])  # Prepares the data, fills the cache.
    for i in range(rounds):
        for name, cache in caches.items():
            path = cache / str(i) if name == "empty cache" else cache
            seconds[name].append(first_step(folder, path))
        began = time.perf_counter()
        loop = "import fcn_jax.training.loop"
        subprocess.run([sys.executable, "-c", loop], cwd=_ROOT, check=True)
        imports.append(time.perf_counter() - began)
    rows = [
        {"what": f"start to first step, {name}", "unit": "s"} | measure.summary(values)
        for name, values in seconds.items()
    ]
    what = "start of Python and import of the loop"
    return [*rows, {"what": what, "unit": "s"} | measure.summary(imports)]


def first_step(folder: pathlib.Path, cache: pathlib.Path) -> float:
    """Runs the quick start until its first step."""
    command = [sys.executable, "run_train.py", "--config=configs/quickstart.py"]
    command += [f"--config.data.dir={folder / 'data'}"]
    command += [f"--config.compilation_cache={cache}"]
    command += [f"--workdir={folder / 'runs' / str(time.time_ns())}"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("First step after"):
                seconds = time.perf_counter() - began
                process.kill()
                return seconds
    raise SystemExit("run_train.py did not come to its first step.")


def prepare(folder: pathlib.Path, rounds: int, width: float) -> list[dict]:
    """Images/s of preparation."""
    del width
    source = folder / "source"
    for name in ("images", "masks"):
        (source / name).mkdir(parents=True)
    for i, record in enumerate(peer_input.make_records(375, 500, 200)):
        (source / "images" / f"{i}.jpg").write_bytes(record["image"])
        (source / "masks" / f"{i}.png").write_bytes(record["mask"])
    rates = {"folder": [], "shapes": []}
    for i in range(rounds):
        for name, values in rates.items():
            began = time.perf_counter()
            data = datasets.load(
                name,
                source=str(source) if name == "folder" else "",
                data_dir=str(folder / f"prepared-{i}"),
            )
            count = sum(len(split.source) for split in data.splits.values())
            values.append(count / (time.perf_counter() - began))
    titles = {"folder": "folder, 200 JPEGs of 500x375", "shapes": "generated shapes"}
    return [
        {"what": f"preparing: {titles[name]}", "unit": "images/s"}
        | measure.summary(values)
        for name, values in rates.items()
    ]


def checkpoint(folder: pathlib.Path, rounds: int, width: float) -> list[dict]:
    """Seconds that a save stops, lasts, and a load; beside PyTorch's."""
    model = fcn.create(21, dtype="float32", width=width)
    like = jax.eval_shape(
        lambda key: state_lib.init_variables(model, key), jax.random.key(0)
    )
    trainable = jax.tree.map(lambda _: True, like["params"])
    tx = optim.make_optimizer("adam", learning_rate=1e-3, trainable=trainable)

    @jax.jit
    def create(key):
        state = state_lib.create(model, tx, key)

        # As after some steps: zeros, or numbers that repeat, would be compressed.
        leaves, structure = jax.tree.flatten(state.opt_state)
        leaves = [
            jax.random.normal(jax.random.fold_in(key, i), x.shape)
            if x.dtype == jnp.float32
            else x
            for i, x in enumerate(leaves)
        ]
        return state.replace(opt_state=jax.tree.unflatten(structure, leaves))

    seconds = {}

    def timed(name, function):
        began = time.perf_counter()
        value = function()
        seconds.setdefault(name, []).append(time.perf_counter() - began)
        return value

    def checksum(state):  # As save() does it.
        parts = state.variables, {"step": state.step, "opt_state": state.opt_state}
        return [state_lib.checksum(part) for part in parts]

    sizes = {}
    for i in range(rounds + 1):  # The first compiles the checksum.
        # Anew: of arrays that were copied to the host once, JAX keeps the copy.
        state = jax.block_until_ready(create(jax.random.key(i)))
        os.sync()
        with checkpoints.open_folder(folder / f"ours-{i}", write=True) as checkpointer:
            timed("of which the checksum", functools.partial(checksum, state))
            both = time.perf_counter()
            save = functools.partial(
                checkpoints.save, checkpointer, state, mean_iou=None, metadata=_METADATA
            )
            timed("a save stops the loop", save)
            checkpoints.wait(checkpointer)
            os.sync()
            seconds.setdefault("a save is on disk", []).append(
                time.perf_counter() - both
            )
            placed = jax.tree.map(lambda x: x.sharding, state)
            abstract = checkpoints.abstract(jax.eval_shape(lambda x: x, state), placed)
            load = functools.partial(checkpoints.restore, checkpointer, 0, abstract)
            loaded = timed("loading", load)
        require_equal(jax.tree.leaves(state), jax.tree.leaves(loaded))
        sizes["ours"] = disk_bytes(folder / f"ours-{i}")
        del loaded
        with_torch(folder / "theirs.pt", state, timed)
        sizes["torch"] = (folder / "theirs.pt").stat().st_size
    rows = [
        {"what": f"checkpoint: {name}", "unit": "s"} | measure.summary(values[1:])
        for name, values in seconds.items()
    ]
    for name, ours, theirs in (
        ("stop, save / torch.save", "a save stops the loop", "torch.save, on disk"),
        ("on disk, save / torch.save", "a save is on disk", "torch.save, on disk"),
        ("loading / torch.load", "loading", "torch.load"),
    ):
        pairs = zip(seconds[ours][1:], seconds[theirs][1:], strict=True)
        ratios = measure.summary([a / b for a, b in pairs])
        rows.append({"what": f"checkpoint: {name}", "unit": "times"} | ratios)
    return rows + [
        {"what": f"checkpoint: size, {side}", "unit": "GB"}
        | measure.summary([size / 1e9])
        for side, size in sizes.items()
    ]


def with_torch(path: pathlib.Path, state, timed) -> None:
    """Saves and loads the same arrays with PyTorch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arrays = [
        torch.tensor(np.asarray(x), device=device) for x in jax.tree.leaves(state)
    ]

    def save():
        torch.save(arrays, path)
        os.sync()

    def load():
        arrays = torch.load(path)
        if device == "cuda":
            torch.cuda.synchronize()
        return arrays

    os.sync()
    timed("torch.save, on disk", save)
    loaded = timed("torch.load", load)
    require_equal([a.cpu() for a in arrays], [a.cpu() for a in loaded])


def require_equal(saved, loaded) -> None:
    """Stops unless all arrays are equal."""
    if not all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(saved, loaded, strict=True)
    ):
        raise SystemExit("What was loaded is not what was saved.")


def disk_bytes(folder: pathlib.Path) -> int:
    """Of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Prints a table and writes the rows."""
    parser = measure.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--width", type=float, default=1.0, help="of the checkpoint's")
    args = parser.parse_args()
    rows = []
    functions = {"start": start, "prepare": prepare, "checkpoint": checkpoint}
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            made = functions[part](pathlib.Path(folder), args.rounds, args.width)
        for row in made:
            print(f"{row['what']:<48}{measure.shown(row, row['unit'], 2)}", flush=True)
        rows += made
        measure.write(args.json, rows)


if __name__ == "__main__":
    main()
