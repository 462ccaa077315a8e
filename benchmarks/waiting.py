"""Does a training step ever wait for its images?

    python -m benchmarks.waiting [--cases train:same:256x256:1:float32] [--threads 4]

A step of FCN-8s, VGG-16 at full width, on batches from JPEGs of 500x375 by our input
pipeline (random scale, crop, flip, colours), against the same step on one batch that
lies on the device: what the second saves is what the images cost. The sides take turns,
each in a process of its own. While the other works, a few batches are read ahead; the
steps before each one that counts use them up.
"""

import functools
import math
import os
import tempfile

import jax

from benchmarks import competitors, measure, peer_input
from fcn_jax.data import pipeline, transforms

CASES = {
    # Small crops: the step is short, and its images take as long to decode.
    "cpu": ["train:same:128x128:2:float32"],
    "gpu": ["train:same:512x512:16:bfloat16"],
}

RUN_UP = 24  # Steps: more than there are batches that are read ahead.


def batches(case: competitors.Case, threads: int):
    """What training would read: batches without end."""
    return pipeline.train_batches(
        peer_input.make_records(375, 500, 64),
        augment=transforms.Augment(crop=case.size),
        batch_size=case.batch,
        seed=0,
        num_threads=threads,
    )


def compare(case: competitors.Case, rounds: int, threads: int) -> dict:
    """A row: both sides on one case."""
    read = functools.partial(batches, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        path = competitors.write_parameters(case, folder)
        with measure.sides(
            still=(competitors.ours, case, path),
            fed=(functools.partial(competitors.ours, batches=read), case, path),
        ) as sides:
            steps = competitors.steps()
            times = measure.take_turns(
                sides, rounds, run_up=math.ceil(RUN_UP / steps), steps=steps
            )
            losses = sides["fed"].result()
    if not all(map(math.isfinite, losses)):
        raise SystemExit(f"{case}: the losses of the steps that were fed are {losses}.")
    row = case.row() | {"threads": threads} | times
    return row | {"ratio": times["fed"]["median"] / times["still"]["median"]}


def main() -> None:
    """Prints a line a case and writes the rows."""
    parser = measure.parser(__doc__)
    cases = CASES.get(jax.default_backend(), CASES["gpu"])
    parser.add_argument("--cases", nargs="+", default=cases)
    parser.add_argument("--threads", type=int, default=min(os.cpu_count(), 16))
    args = parser.parse_args()
    rows = []
    for case in map(competitors.Case.parse, args.cases):
        row = compare(case, args.rounds, args.threads)
        rows.append(row)
        print(
            f"{case}: one batch {measure.shown(row['still'], digits=4)}, "
            f"fed {measure.shown(row['fed'], digits=4)}, ratio {row['ratio']:.2f}",
            flush=True,
        )
        measure.write(args.json, rows)


if __name__ == "__main__":
    main()
