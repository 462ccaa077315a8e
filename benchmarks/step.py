"""A training step and an inference of FCN-8s, VGG-16, against PyTorch.

    python -m benchmarks.step
    python -m benchmarks.step --cases train:same:512x512:16:bfloat16 --rounds=10

Eager PyTorch and torch.compile, channels last, autocast for bfloat16, float32 without
TF32, the same parameters, images and optimizer. Each side has a process of its own;
they take turns, of which the first step does not count. Losses of the first steps, or
predicted classes and scores, are compared. Also: the memory of each side (of the GPU,
else of the process), the seconds of the first step, which compiles, and the share of
the fastest measured product of square matrices. A case is
work:geometry:HEIGHTxWIDTH:batch:dtype, work train or infer. Needs PyTorch.
"""

import functools
import tempfile

import jax
import numpy as np

from benchmarks import competitors, measure

SHAPES = {
    "cpu": ("caffe:375x500:1", "same:512x512:1"),
    "gpu": ("caffe:375x500:1", "caffe:375x500:16", "same:512x512:16"),
}
SIDES = {
    "ours": (competitors.ours,),
    "eager": (competitors.theirs,),
    "compiled": (competitors.theirs, True),
    # Ours again, but freed memory goes back to the system: not among the defaults.
    "giving_back": (functools.partial(competitors.ours, keep_freed=False),),
}
DEFAULT_SIDES = ["ours", "eager", "compiled"]
# The largest relative difference of the first loss or of the highest scores, and the
# largest share of other classes; later losses may differ by what rounding grows to.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
LATER = 3e-2


def compare(case: competitors.Case, sides: list[str], rounds: int) -> dict:
    """Times the sides on one case; returns a row."""
    with tempfile.TemporaryDirectory() as folder:
        path = competitors.write_parameters(case, folder)
        builds = {
            name: (SIDES[name][0], case, path, *SIDES[name][1:]) for name in sides
        }
        with measure.sides(**builds) as started:
            times = measure.take_turns(started, rounds, steps=competitors.steps())
            results = {name: side.result() for name, side in started.items()}
            peaks = {name: side.peak_gib() for name, side in started.items()}
    first, worst = np.max(
        [differences(results["ours"], other) for other in results.values()], axis=0
    )
    if not (first <= TOLERANCE[case.dtype] and worst <= LATER):
        raise SystemExit(
            f"{case}: the sides differ by {first:.2g} at first, later by {worst:.2g}; "
            f"more than {TOLERANCE[case.dtype]} or {LATER}: they compute other things."
        )
    row = case.row() | {"flops": case.flops(), "difference": float(first)}
    for name in sides:
        row[name] = times[name] | {"gib": peaks[name]}
        if name != "ours":
            row[f"ratio_{name}"] = times["ours"]["median"] / times[name]["median"]
    return row


def differences(ours, theirs) -> tuple[float, float]:
    """Of the first losses and of any, relative; or of scores and classes, twice."""
    if isinstance(ours, list):
        relative = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
        return relative[0], max(relative)
    (our_classes, our_score), (their_classes, their_score) = ours, theirs
    other = float(np.mean(our_classes != their_classes))
    worst = max(other, abs(our_score - their_score) / abs(their_score))
    return worst, worst


def matrix_rates(dtype: str, rounds: int) -> dict[str, float]:
    """The rate of products of square matrices, FLOP/s by library."""
    builds = {
        library: (competitors.matrix_products, library, dtype)
        for library in ("jax", "torch")
    }
    with measure.sides(**builds) as started:
        times = measure.take_turns(started, 3 * rounds)
    flops = competitors.matrix_flops()
    return {library: flops / result["lowest"] for library, result in times.items()}


def main() -> None:
    """Prints a table and writes the rows."""
    parser = measure.parser(__doc__)
    platform = jax.default_backend()
    shapes = SHAPES.get(platform, SHAPES["gpu"])
    parser.add_argument(
        "--cases",
        nargs="+",
        type=competitors.Case.parse,
        default=[
            competitors.Case.parse(f"{work}:{shape}:{dtype}")
            for dtype in ("float32", "bfloat16")
            for work in ("train", "infer")
            for shape in shapes
        ],
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=DEFAULT_SIDES)
    args = parser.parse_args()
    rates = {}
    for dtype in sorted({case.dtype for case in args.cases}):
        rates[dtype] = matrix_rates(dtype, args.rounds)
        shown = (f"{name} {r / 1e9:.0f}" for name, r in rates[dtype].items())
        print(f"Products of matrices, {dtype}, GFLOP/s: {', '.join(shown)}")
    rows = []
    for case in args.cases:
        row = compare(case, args.sides, args.rounds)
        row["matrix_rates"] = rates[case.dtype]
        fastest = max(rates[case.dtype].values())
        rows.append(row)
        print(f"\n{case}; difference {row['difference']:.1e}")
        for name in args.sides:
            times = row[name]
            share = row["flops"] / times["median"] / fastest
            ratio = f", ours / it {row['ratio_' + name]:.2f}" if name != "ours" else ""
            print(
                f"  {name:<9} {measure.shown(times, digits=4)}, "
                f"{case.batch / times['median']:.2f} images/s, first "
                f"{times['first']:.1f} s, {times['gib']:.2f} GiB, "
                f"{100 * share:.0f}% of the matrix rate{ratio}",
                flush=True,
            )
        measure.write(args.json, rows)


if __name__ == "__main__":
    main()
