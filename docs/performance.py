"""Puts the benchmarks' results into the tables of performance.md.

python docs/performance.py

The results are the JSON files of ``python -m benchmarks.suite``, in performance/cpu and
performance/gpu; of a CPU without AVX-512, in performance/cpu_avx2, only some. A table
stands between ``<!-- table NAME -->`` and ``<!-- end -->``.
"""

import json
import pathlib
import re
import statistics
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "performance"
TARGET = HERE / "performance.md"
MACHINES = ("cpu", "cpu_avx2", "gpu")
_TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Writes the file."""
    TARGET.write_text(render(TARGET.read_text()))


def render(text: str) -> str:
    """Returns the text with its tables made anew."""
    return _TABLE.sub(lambda m: m[1] + table(m[2]) + m[3], text)


def table(name: str) -> str:
    """The tables of one benchmark, for every machine."""
    parts = []
    for machine in MACHINES:
        path = RESULTS / machine / f"{name}.json"
        if not path.exists() and machine == "cpu_avx2":
            continue
        if not path.exists() and (machine, name) == ("gpu", "convolution"):
            parts.append("On a GPU there are XLA's own alone.\n")
            continue
        if not path.exists():
            flag = "--camvid=CAMVID" if name == "camvid" else f"--only {name}"
            command = f"python -m benchmarks.suite {flag}"
            parts.append(f"On a {machine.upper()}: not yet measured (`{command}`).\n")
            continue
        result = json.loads(path.read_text())
        versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        parts.append(
            f"`{result['command']}`, commit `{result['commit']}`, {result['date']}, "
            f"{result['hardware']}; {versions}.\n\n"
            + "\n".join(TABLES[name](result["rows"]))
            + "\n"
        )
    return "\n" + "\n".join(parts) + "\n"


def _markdown(header: str, rows: list[list[str]]) -> Iterator[str]:
    columns = header.split("|")
    yield f"| {' | '.join(c.strip() for c in columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _range(result: dict) -> str:
    """Median, lowest and highest."""
    median, low, high = (_number(result[k]) for k in ("median", "lowest", "highest"))
    return median if low == high else f"{median} ({low} to {high})"


def _number(value: float) -> str:
    """Three digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _case(row: dict) -> str:
    return f"{row['work']}, {row['geometry']}, {row['size']}, batch {row['batch']}"


def step(rows: list[dict]) -> Iterator[str]:
    """Seconds, memory, compilation and share of the matrix rate."""
    cells = []
    for row in rows:
        sides = [row.get(name) for name in ("ours", "eager", "compiled")]
        rate = max(row["matrix_rates"].values())
        share = row["flops"] / row["ours"]["median"] / rate
        cells.append(
            [_case(row), row["dtype"]]
            + [_range(side) if side else "" for side in sides]
            + [
                f"**{row[f'ratio_{n}']:.2f}**" if f"ratio_{n}" in row else ""
                for n in ("eager", "compiled")
            ]
            + [f"{row['batch'] / row['ours']['median']:.3g}"]
            + [" / ".join(f"{s['gib']:.1f}" for s in sides if s)]
            + [" / ".join(f"{s['first']:.0f}" for s in sides if s)]
            + [f"{100 * share:.0f}%"]
        )
    rates = {row["dtype"]: row["matrix_rates"] for row in rows}
    for dtype, by_library in rates.items():
        shown = (f"{name} {rate / 1e9:.0f}" for name, rate in by_library.items())
        yield f"Products of matrices, {dtype}, GFLOP/s: {', '.join(shown)}."
        yield ""
    yield from _markdown(
        "work | precision | ours, s | eager, s | compiled, s | ours / eager | "
        "ours / compiled | "
        "our images/s | GiB | first, s | share",
        cells,
    )


def evaluation(rows: list[dict]) -> Iterator[str]:
    """Images/s of a whole evaluation."""
    cells = []
    for row in rows:
        for name, title in (
            ("ours", f"ours, batches of {row['batch']}"),
            ("one", "PyTorch, one at a time"),
            ("batched", f"PyTorch, padded batches of {row['batch']}"),
        ):
            side = row[name]
            cells.append(
                [
                    f"{title}, {row['dtype']}, {row['images']} images",
                    _range(side),
                    f"{row['images'] / side['median']:.3g}",
                    f"{side['gib']:.1f}",
                    "" if name == "ours" else f"**{row[f'ratio_{name}']:.2f}**",
                    "" if name == "ours" else f"{side['moved']:.0e}",
                ]
            )
    return _markdown(
        " | seconds | images/s | GiB | ours / it | pixels counted elsewhere", cells
    )


def growth(rows: list[dict]) -> Iterator[str]:
    """Seconds and memory along each axis."""
    cells = []
    for row in rows:
        value = {
            "area": row["size"],
            "batch": f"{row['batch']}",
            "classes": f"{row['num_classes']}",
            "devices": f"{row['devices']}",
        }[row["axis"]]
        sides = [row.get(name) for name in ("ours", "eager")]
        cells.append(
            [row["axis"], value]
            + [_range(s) if s else "" for s in sides]
            + [f"{row['ratio_eager']:.2f}" if "ratio_eager" in row else ""]
            + [f"{s['gib']:.2f}" if s else "" for s in sides]
        )
    return _markdown(
        "axis |  | ours, s | eager, s | ours / eager | our GiB | eager GiB", cells
    )


def input_pipeline(rows: list[dict]) -> Iterator[str]:
    """Images/s, and images per second of processor time."""
    cells = [
        [
            row["reader"],
            f"{row['workers']}",
            _range(row["images_per_second"]),
            f"{row['ratio_images_per_second']:.2f}",
            _range(row["per_core"]),
            f"**{row['ratio_per_core']:.2f}**",
        ]
        for row in rows
    ]
    return _markdown(
        "reader | workers | images/s | it / DataLoader | images/s a core | "
        "it / DataLoader",
        cells,
    )


def waiting(rows: list[dict]) -> Iterator[str]:
    """Seconds of a step on one batch and on batches that are read meanwhile."""
    return _markdown(
        "work | precision | reading threads | one batch, s | fed, s | fed / one batch",
        [
            [
                _case(row),
                row["dtype"],
                f"{row['threads']}",
                _range(row["still"]),
                _range(row["fed"]),
                f"**{row['ratio']:.2f}**",
            ]
            for row in rows
        ],
    )


def startup(rows: list[dict]) -> Iterator[str]:
    """One measurement a row."""
    cells = [[row["what"], f"{_range(row)} {row['unit']}"] for row in rows]
    return _markdown(" | ", cells)


def convolution(rows: list[dict]) -> Iterator[str]:
    """Milliseconds of each layer: ours, XLA's own."""
    cells = {}
    for row in rows:
        name = f"{row['layer']}, {'x'.join(map(str, row['shape'][1:]))}"
        ours, xla = (_number(row[side]["median"]) for side in ("ours", "xla"))
        cells.setdefault(name, {})[row["part"]] = f"{ours} / {xla}"
    parts = ("output", "by input", "by kernel")
    return _markdown(
        "layer, input | output, ours / XLA's own, ms | gradient by input | by kernel",
        [[name, *(row.get(part, "") for part in parts)] for name, row in cells.items()],
    )


def camvid(rows: list[dict]) -> Iterator[str]:
    """The settings that were tried, the ablation, and the recipe, seed by seed."""
    base = [row for row in rows if row["name"] in ("base", "vgg16")]
    for group, title, common in (
        ("search", "Losses, dropout, rate, augmentation", []),
        ("network", "Networks and resolutions, in about the same time", base),
        ("ablation", "Strides and upsampling, as in the paper's table 2", base),
        ("final", "The recipe", []),
    ):
        found = [row for row in rows if row["group"] == group]
        if not found:
            continue
        yield f"**{title}**"
        yield ""
        if group == "ablation":
            yield from _means(common + found)
        else:
            first = [r for r in common + found if group == "final" or r["seed"] == 0]
            yield from _scores(first)
        yield ""
        if group == "final":
            yield from _classes(found)
            yield ""


def _scores(rows: list[dict]) -> Iterator[str]:
    """The four scores of each row, and what it took."""
    names = ("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    return _markdown(
        "setting | seed | mean IoU | pixel accuracy | mean accuracy | "
        "frequency-weighted IoU | images | minutes | cores | commit",
        [
            [
                _setting(row),
                f"{row['seed']}",
                f"**{row['scores']['mean_iou']:.4f}**",
                *(f"{row['scores'][name]:.4f}" for name in names),
                f"{row['images']:,}",
                f"{row['seconds'] / 60:.1f}",
                f"{row['cores']}",
                f"`{row['commit']}`",
            ]
            for row in rows
        ],
    )


def _means(rows: list[dict]) -> Iterator[str]:
    """The mean IoU of each seed, and means over the seeds, setting by setting."""
    by_name = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        by_name.setdefault(row["name"], []).append(row)

    def mean(group, score):
        return f"{statistics.mean(row['scores'][score] for row in group):.4f}"

    return _markdown(
        "setting | mean IoU, seed by seed | mean | pixel accuracy | mean accuracy | "
        "frequency-weighted IoU | images | commits",
        [
            [
                _setting(group[0]),
                ", ".join(f"{row['scores']['mean_iou']:.4f}" for row in group),
                f"**{mean(group, 'mean_iou')}**",
                mean(group, "pixel_accuracy"),
                mean(group, "mean_accuracy"),
                mean(group, "frequency_weighted_iou"),
                f"{group[0]['images']:,}",
                ", ".join(dict.fromkeys(f"`{row['commit']}`" for row in group)),
            ]
            for group in by_name.values()
        ],
    )


def _setting(row: dict) -> str:
    changes = (f"`{k}={v}`" for k, v in row["changes"].items())
    return f"{row['name']}: {', '.join(changes)}" if row["changes"] else row["name"]


def _classes(rows: list[dict]) -> Iterator[str]:
    """The IoU of each class by seed, and the mean IoU along each run."""
    ious = {
        name: [row["iou_per_class"][name] for row in rows]
        for name in rows[0]["iou_per_class"]
    } | {"**mean**": [row["scores"]["mean_iou"] for row in rows]}
    seeds = " | ".join(f"seed {row['seed']}" for row in rows)
    yield from _markdown(
        f"IoU | {seeds} | mean of the seeds",
        [
            [name, *(f"{v:.4f}" for v in values), f"{statistics.mean(values):.4f}"]
            for name, values in ious.items()
        ],
    )
    yield ""
    steps = list(rows[0]["mean_iou_by_step"])
    yield from _markdown(
        f"mean IoU after step | {' | '.join(steps)}",
        [
            [f"seed {row['seed']}"]
            + [f"{row['mean_iou_by_step'][step]:.4f}" for step in steps]
            for row in rows
        ],
    )


TABLES: dict[str, Callable[[list[dict]], Iterator[str]]] = {
    "step": step,
    "evaluation": evaluation,
    "input_pipeline": input_pipeline,
    "waiting": waiting,
    "startup": startup,
    "growth": growth,
    "convolution": convolution,
    "camvid": camvid,
}


if __name__ == "__main__":
    main()
