"""How the training step grows: with the area, the batch, the classes, the devices.

    python -m benchmarks.growth [--axes area batch classes devices]

FCN-8s, VGG-16 at full width, ours and eager PyTorch, one axis at a time from a common
point. Each side of each point has a process of its own: seconds of a step and peak
memory. Devices: ours alone, each with the same batch of its own (on a CPU, virtual
devices share the cores). Needs PyTorch.
"""

import os
import tempfile

import jax

from benchmarks import competitors, measure, step

AXES = {
    "cpu": {
        "area": [(128, 128), (256, 256), (384, 384), (512, 512)],
        "batch": [1, 2, 4],
        "classes": [2, 21, 150, 1000],
        "devices": [1, 2],
        "base": ((256, 256), 1),
    },
    "gpu": {
        "area": [(256, 256), (512, 512), (768, 768), (1024, 1024)],
        "batch": [1, 4, 16, 32],
        "classes": [2, 21, 150, 1000],
        "devices": [1, 2, 4, 8],
        "base": ((512, 512), 4),
    },
}


def points(axis: str, table: dict, dtype: str) -> list[tuple[int, competitors.Case]]:
    """(devices, case) along an axis."""
    size, batch = table["base"]
    found = []
    for value in table[axis]:
        fields = {"size": size, "batch": batch}
        if axis == "devices":
            fields["batch"] = batch * value
        else:
            fields[{"area": "size", "classes": "num_classes"}.get(axis, axis)] = value
        case = competitors.Case(work="train", geometry="same", dtype=dtype, **fields)
        found.append((value if axis == "devices" else 1, case))
    return found


def time_point(case: competitors.Case, rounds: int, alone: bool) -> dict:
    """A row: both sides on one case, or ours alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = competitors.write_parameters(case, folder)
        builds = {"ours": (competitors.ours, case, path)}
        if not alone:
            builds["eager"] = (competitors.theirs, case, path)
        with measure.sides(**builds) as sides:
            times = measure.take_turns(sides, rounds, steps=competitors.steps())
            losses = {name: side.result() for name, side in sides.items()}
            for name, side in sides.items():
                times[name]["gib"] = side.peak_gib()
    row = case.row() | times
    if not alone:
        first, _ = step.differences(losses["ours"], losses["eager"])
        if not first <= step.TOLERANCE[case.dtype]:
            raise SystemExit(f"{case}: the sides' first losses differ by {first:.2g}.")
        row["ratio_eager"] = times["ours"]["median"] / times["eager"]["median"]
    return row


def main() -> None:
    """Prints a table for each axis and writes the rows."""
    accelerated = jax.default_backend() != "cpu"
    table = AXES["gpu" if accelerated else "cpu"]
    axes = [axis for axis in table if axis != "base"]
    parser = measure.parser(__doc__)
    parser.add_argument("--axes", nargs="+", choices=axes, default=axes)
    parser.add_argument("--dtype", default="bfloat16" if accelerated else "float32")
    args = parser.parse_args()
    rows = []
    for axis in args.axes:
        print(f"\n{axis}: seconds of a step, peak memory")
        for devices, case in points(axis, table, args.dtype):
            if accelerated and devices > jax.device_count():
                print(f"  {devices} devices: there are {jax.device_count()}")
                continue
            seen = "CUDA_VISIBLE_DEVICES" if accelerated else "JAX_NUM_CPU_DEVICES"
            os.environ[seen] = (
                ",".join(map(str, range(devices))) if accelerated else str(devices)
            )
            row = time_point(case, args.rounds, axis == "devices")
            rows.append({"axis": axis, "devices": devices} | row)
            parts = [
                f"{name} {measure.shown(row[name], digits=4)}, "
                f"{row[name]['gib']:.2f} GiB"
                for name in ("ours", "eager")
                if name in row
            ]
            ratio = f"; ours / it {row['ratio_eager']:.2f}" if len(parts) > 1 else ""
            print(
                f"  {case}, {case.num_classes} classes, {devices} devices: "
                f"{'; '.join(parts)}{ratio}",
                flush=True,
            )
            measure.write(args.json, rows)


if __name__ == "__main__":
    main()
