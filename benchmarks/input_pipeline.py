"""The training input beside PyTorch's: decode, scale, crop, flip, colours, batch.

    python -m benchmarks.input_pipeline                      # made JPEGs
    python -m benchmarks.input_pipeline --source=DIR --image_scale=0.5 --crop 180 240

Images/s, and images per second of processor time, by the number of worker processes (0:
none beside the program's own, which reads with threads here) of our pipeline, of a
DataLoader with the usual operations in OpenCV (resize whole, crop, flip, colours by way
of HSV), and of a DataLoader with our operations. All examples of an epoch are compared,
through both readers: without augmentation those of all three, with our operations and
the same random numbers those of the two readers. Each side has a process of its own;
they take turns, and a turn ends only when the buffers are full again. Needs PyTorch.
"""

import functools
import itertools
import os
import pathlib
import time
import zlib

import numpy as np

from benchmarks import measure, peer_input
from fcn_jax import errors, memory
from fcn_jax.data import datasets, pipeline, transforms


def ours(records, augment, batch: int, workers: int, threads: int):
    """An iterator of our pipeline."""
    memory.keep_freed()  # As in training.
    return pipeline.train_batches(
        records,
        augment=augment,
        batch_size=batch,
        seed=0,
        num_workers=workers,
        num_threads=threads,
        prefetch=2,
    )


def theirs(records, augment, batch: int, workers: int):
    """An iterator of a DataLoader that goes round and round."""
    import torch

    torch.set_num_threads(1)
    return iter(
        torch.utils.data.DataLoader(
            peer_input.Examples(records, augment),
            batch_size=batch,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
        )
    )


def side(reader, records, augment, batch: int, batches: int, workers: int, *threads):
    """A reader as a ``measure.Side``; a unit of work is one measurement."""
    stream = reader(records(), augment, batch, workers, *threads)
    # More than the readers hold ready, in this process and in each worker.
    held = (max([2, *threads]) + 4) * (workers + 1)
    return functools.partial(pull, stream, held, batches)


def pull(stream, held: int, batches: int) -> tuple[float, float]:
    """Takes batches; returns the seconds and those of processor time that they took.

    What was made ready before must not count: the buffers are emptied first, and what
    is made in the measured time is what is taken in it. Nor must what is made ready
    afterwards run in another's time.
    """
    for _ in itertools.islice(stream, held):
        pass
    start, before = time.perf_counter(), processor_seconds()
    for _ in itertools.islice(stream, batches):
        pass
    took = time.perf_counter() - start, processor_seconds() - before
    settle()
    return took


def settle() -> None:
    """Waits until this process and its workers are idle, at most 10 s."""
    for _ in range(40):
        before = processor_seconds()
        time.sleep(0.25)
        if processor_seconds() - before < 0.03:
            return


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


class Keyed:
    """``augment`` with random numbers that depend on the record alone."""

    def __init__(self, augment):
        """``augment``: a ``transforms.Augment``."""
        self.augment = augment

    def __call__(self, record, rng):
        """The record's one example."""
        del rng
        return self.augment(
            record, np.random.default_rng(zlib.crc32(record["name"].encode()))
        )


def require_same(records, augment) -> None:
    """Stops unless the readers give the same examples, in whatever order."""
    sizes = [transforms.decode(record)["label"].shape for record in records]
    whole = tuple(int(n) for n in np.max(sizes, axis=0))
    still = transforms.Augment(whole, scale=(1.0, 1.0), flip=False, photometric=False)
    usual = peer_input.Usual(whole, scale=(1.0, 1.0), flip=False, colours=False)
    for ours_make, theirs_make, what in (
        (still, usual, "Without augmentation"),
        (still, peer_input.Generated(still), "Without augmentation"),
        (Keyed(augment), peer_input.Generated(Keyed(augment)), "With equal draws"),
    ):
        mine = epoch(ours(records, ours_make, 1, 0, 1), len(records))
        if mine != epoch(theirs(records, theirs_make, 1, 0), len(records)):
            raise SystemExit(f"{what}, the readers give different examples.")


def epoch(stream, count: int) -> list[tuple]:
    """Checksums of the examples, sorted."""
    return sorted(
        tuple(zlib.crc32(np.asarray(batch[name])) for name in ("image", "label"))
        for batch in itertools.islice(stream, count)
    )


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
    args = parser.parse_args()
    crop = tuple(args.crop)
    try:
        records = functools.partial(read, args)
        made = records()
        augment = transforms.Augment(crop=crop, image_scale=args.image_scale)
    except errors.UserError as error:
        raise SystemExit(f"{error}") from None
    print(f"Crops of {crop[0]}x{crop[1]}, batches of {args.batch}, {cores} cores")
    require_same(made[: args.images], augment)
    usual = peer_input.Usual(crop=crop, image_scale=args.image_scale)
    loader = peer_input.Generated(augment)
    rows = []
    for count in args.workers:
        # Workers go in step at first: each of them has to come round several times.
        batches = max(args.batches, 10 * count)
        common = (args.batch, batches)
        builds = {"usual": (side, theirs, records, usual, *common, count)}
        builds["same"] = (side, theirs, records, loader, *common, count)
        for threads in args.threads:
            build = (side, ours, records, augment, *common, count, threads)
            builds[f"ours, {threads} threads"] = build
        rows += compare(builds, count, args.batch * batches, args.rounds)
        measure.write(args.json, rows)


def compare(builds: dict, workers: int, images: int, rounds: int) -> list[dict]:
    """Rows of all sides with one number of workers, ``images`` a measurement."""
    titles = {"usual": "DataLoader", "same": "DataLoader, our operations"}
    with measure.sides(**builds) as sides:
        for competitor in sides.values():
            competitor.run()
        rates = {name: [] for name in sides}
        per_core = {name: [] for name in sides}
        order = list(sides)
        for i in range(rounds):
            for name in order[i % len(order) :] + order[: i % len(order)]:
                sides[name].run()
                seconds, processor = sides[name].result()
                rates[name].append(images / seconds)
                per_core[name].append(images / processor)
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
