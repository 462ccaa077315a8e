"""The training input beside PyTorch's: decode, scale, crop, flip, colours, batch.

    python -m benchmarks.input_pipeline                      # made JPEGs
    python -m benchmarks.input_pipeline --source=DIR --image_scale=0.5 --crop 180 240
    python -m benchmarks.input_pipeline --step_seconds=0.5   # does a step ever wait?

Images/s, and images per second of processor time, by the number of worker processes (0:
none beside the program's own, which reads with threads here) of our pipeline, of a
DataLoader with the usual operations in OpenCV (resize whole, crop, flip, colours by way
of HSV), and of a DataLoader with our operations. What the readers give without
augmentation is compared. Each side has a process of its own; they take turns.
Needs PyTorch.
"""

import functools
import itertools
import os
import pathlib
import time

import numpy as np

from benchmarks import measure, peer_input
from fcn_jax import errors
from fcn_jax.data import datasets, pipeline, transforms


def ours(records, augment, batch: int, batches: int, workers: int, threads: int):
    """Our pipeline, see ``measure.Side``; a unit of work is ``batches`` batches."""
    stream = pipeline.train_batches(
        records(),
        augment=augment,
        batch_size=batch,
        seed=0,
        num_workers=workers,
        num_threads=threads,
        prefetch=2,
    )
    return functools.partial(pull, stream, batches)


def theirs(records, augment, batch: int, batches: int, workers: int):
    """A DataLoader over endless random draws, see ``measure.Side``."""
    import torch

    torch.set_num_threads(1)
    stream = iter(
        torch.utils.data.DataLoader(
            peer_input.Examples(records(), augment),
            batch_size=batch,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
        )
    )
    return functools.partial(pull, stream, batches)


def pull(stream, batches: int) -> float:
    """Takes batches; returns the seconds of processor time that they took."""
    before = processor_seconds()
    for _ in itertools.islice(stream, batches):
        pass
    return processor_seconds() - before


def processor_seconds() -> float:
    """Of this process and of those that it has started."""
    ticks, parents = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # Has just ended.
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
    own = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(ticks[p] for p in own) / os.sysconf("SC_CLK_TCK")


def waiting(records, augment, args) -> float:
    """The share of the time that steps of ``args.step_seconds`` wait for a batch."""
    stream = pipeline.train_batches(
        records(),
        augment=augment,
        batch_size=args.batch,
        seed=0,
        num_workers=args.workers[0],
        num_threads=args.threads[0],
    )
    next(stream)
    began, waited = time.perf_counter(), 0.0
    for _ in range(args.batches):
        time.sleep(args.step_seconds)
        start = time.perf_counter()
        next(stream)
        waited += time.perf_counter() - start
    stream.close()
    return waited / (time.perf_counter() - began)


def require_same(records) -> None:
    """Stops unless both ways give the same without augmentation, at the same size."""
    record = records()[0]
    size = transforms.decode(record)["label"].shape
    still = transforms.Augment(
        crop=size, scale=(1.0, 1.0), flip=False, photometric=False
    )
    usual = peer_input.Usual(crop=size, scale=(1.0, 1.0), flip=False, colours=False)
    a, b = still(record, np.random.default_rng(0)), usual(record)
    if any((a[name] != b[name]).any() for name in ("image", "label")):
        raise SystemExit("Without augmentation, the sides give different examples.")


def read(args) -> list:
    """The records: of a data set, or made."""
    if not args.source:
        return peer_input.make_records(*args.size, args.images)
    data = datasets.load("folder", source=args.source, data_dir=args.data_dir)
    return list(data.split(args.split).source)


def main() -> None:
    """Prints a table and writes the rows."""
    cores = os.cpu_count()
    parser = measure.parser(__doc__)
    parser.add_argument("--source", default="", help="folder data set; empty: made")
    parser.add_argument("--data_dir", default="data", help="where it is prepared")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500))
    parser.add_argument("--images", type=int, default=64, help="made JPEGs")
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 512))
    parser.add_argument("--image_scale", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=20, help="in one measurement")
    workers = sorted({0, 1, 2, cores // 2, cores} if cores > 2 else {0, 1, 2})
    parser.add_argument("--workers", type=int, nargs="+", default=workers)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, min(cores, 4)])
    parser.add_argument("--step_seconds", type=float, default=0.0)
    args = parser.parse_args()
    try:
        records = functools.partial(read, args)
        require_same(records)
        augment = transforms.Augment(crop=args.crop, image_scale=args.image_scale)
    except errors.UserError as error:
        raise SystemExit(f"{error}") from None
    print(f"Crops of {args.crop}, batches of {args.batch}, {cores} cores")
    if args.step_seconds:
        share = waiting(records, augment, args)
        print(f"Steps of {args.step_seconds} s wait {100 * share:.1f}% of the time.")
        return
    usual = peer_input.Usual(crop=args.crop, image_scale=args.image_scale)
    loader = peer_input.Generated(augment)
    common = (args.batch, args.batches)
    rows = []
    for count in args.workers:
        builds = {"usual": (theirs, records, usual, *common, count)}
        builds["same"] = (theirs, records, loader, *common, count)
        for threads in args.threads:
            side = (ours, records, augment, *common, count, threads)
            builds[f"ours, {threads} threads"] = side
        rows += compare(builds, count, args)
    measure.write(args.json, rows)


def compare(builds: dict, workers: int, args) -> list[dict]:
    """Rows of all sides with one number of workers."""
    images = args.batch * args.batches
    titles = {"usual": "DataLoader", "same": "DataLoader, our operations"}
    with measure.sides(**builds) as sides:
        # What was made ready before the clock started must not count.
        measure.take_turns(sides, 1)
        rates = {name: [] for name in sides}
        per_core = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():
                rates[name].append(images / side.run())
                per_core[name].append(images / side.result())
    rows = []
    for name in sides:
        row = {"reader": titles.get(name, name), "workers": workers}
        row["images_per_second"] = measure.summary(rates[name])
        row["per_core"] = measure.summary(per_core[name])
        for what in ("images_per_second", "per_core"):
            row[f"ratio_{what}"] = row[what]["median"] / np.median(
                (rates if what == "images_per_second" else per_core)["usual"]
            )
        rows.append(row)
        print(
            f"  {workers} workers, {row['reader']:<28}"
            f"{measure.shown(row['images_per_second'], 'images/s', 0)}, "
            f"{measure.shown(row['per_core'], 'a core', 0)}, "
            f"it / DataLoader {row['ratio_images_per_second']:.2f}, "
            f"a core {row['ratio_per_core']:.2f}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
