"""A whole evaluation, from JPEG to confusion matrix, against PyTorch's usual loops.

    python -m benchmarks.evaluation [--images=12] [--dtypes float32]

FCN-8s, VGG-16 at full width, 21 classes, on made images of the sizes that PASCAL VOC
has most. PyTorch takes them one at a time, each at its own size, as published FCN code
does, and in batches, padded to the largest. Both loops read in worker processes and
count on the device. The counts are compared: one at a time with ours they have to
agree; padding changes the borders in PyTorch, so that of its batches the share that
differs is told. Each side has a process of its own; they take turns. Needs PyTorch.
"""

import tempfile

import jax
import numpy as np

from benchmarks import competitors, measure, peer_input
from fcn_jax import memory, sharding
from fcn_jax.data import datasets
from fcn_jax.data.labels import IGNORE
from fcn_jax.evaluation import evaluate, tasks
from fcn_jax.models import fcn

SIZES = ((375, 500), (500, 375), (333, 500), (375, 500), (500, 333), (281, 500))
CLASSES = 21
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # Share of pixels counted elsewhere.


def make_records(count: int) -> list[dict]:
    """Records of mixed sizes: a JPEG and a mask each, of which 16 a size differ."""
    made = {size: peer_input.make_records(*size, 16) for size in set(SIZES)}
    return [made[SIZES[i % len(SIZES)]][i // len(SIZES) % 16] for i in range(count)]


def ours(case: competitors.Case, path: str, count: int, threads: int):
    """Our evaluator."""
    memory.keep_freed()
    competitors.forbid_tf32(case.dtype)
    records = make_records(count)
    labelled = sum(
        int((mask != IGNORE).sum()) for _, mask in map(peer_input.decode, records)
    )
    unused = np.ones(CLASSES)
    split = datasets.Split(
        source=records,
        max_size=tuple(np.max(SIZES, 0).tolist()),
        pixel_counts=unused,
        image_pixel_counts=unused,
        num_labelled=labelled,
        mean=unused,
        std=unused,
    )
    dataset = datasets.Dataset(
        name="made",
        class_names=tuple(map(str, range(CLASSES))),
        palette=np.zeros((256, 3), np.uint8),
        splits={"val": split},
    )
    evaluator = evaluate.Evaluator(
        case.model(),
        dataset,
        "val",
        task=tasks.Semantic(CLASSES),
        mesh=sharding.make_mesh(),
        batch_size=case.batch,
        num_threads=threads,
    )
    variables = jax.device_put({"params": competitors.read_parameters(path)})

    def work():
        evaluator(variables)
        return evaluator.counts

    return work


def theirs(case: competitors.Case, path: str, count: int, workers: int, batch: int):
    """PyTorch's loop over a DataLoader; of one image, or of padded batches."""
    import torch

    from benchmarks import peer

    competitors.forbid_tf32(case.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = peer.FCN8s(CLASSES, case.geometry)
    network.load_jax(competitors.read_parameters(path))
    network = network.to(device, memory_format=torch.channels_last).eval()
    loader = torch.utils.data.DataLoader(
        Images(make_records(count), np.max(SIZES, 0) if batch > 1 else None),
        batch_size=batch,
        num_workers=workers,
        pin_memory=device == "cuda",
        persistent_workers=workers > 0,
    )
    torch.backends.cudnn.benchmark = True
    normalise = peer.normaliser(case.model(), device)

    def work():
        counts = torch.zeros(CLASSES**2, dtype=torch.int64, device=device)
        with torch.inference_mode():
            for images, masks in loader:
                images, masks = (
                    x.to(device, non_blocking=True) for x in (images, masks)
                )
                with torch.autocast(
                    device, torch.bfloat16, enabled=case.dtype == "bfloat16"
                ):
                    logits = network(normalise(images.permute(0, 3, 1, 2)))
                known = masks != IGNORE
                cells = CLASSES * masks[known].long() + logits.argmax(1)[known]
                counts += torch.bincount(cells, minlength=CLASSES**2)
        return counts.cpu().numpy().reshape(CLASSES, CLASSES)

    return work


class Images:
    """Decoded images and masks, padded to a canvas if there is one."""

    def __init__(self, records, canvas):
        """``canvas``: height and width, or None."""
        self.records, self.canvas = records, canvas

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        image, mask = peer_input.decode(self.records[i])
        if self.canvas is not None:
            below, right = self.canvas - mask.shape
            # With the mean, which is zero to the network.
            mean = np.array(fcn.FCN.mean).round().astype(np.uint8)
            padded = np.tile(mean, (*self.canvas, 1))
            padded[: mask.shape[0], : mask.shape[1]] = image
            image = padded
            mask = np.pad(mask, ((0, below), (0, right)), constant_values=IGNORE)
        return image, mask


def main() -> None:
    """Prints a table and writes the rows."""
    accelerated = jax.default_backend() != "cpu"
    parser = measure.parser(__doc__)
    parser.add_argument("--images", type=int, default=2048 if accelerated else 12)
    parser.add_argument("--batch", type=int, default=16 if accelerated else 2)
    parser.add_argument("--readers", type=int, default=8 if accelerated else 2)
    dtypes = list(TOLERANCE) if accelerated else ["float32"]
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE, default=dtypes)
    parser.add_argument("--geometry", choices=fcn.GEOMETRIES, default="same")
    args = parser.parse_args()
    rows = []
    for dtype in args.dtypes:
        rows.append(compare(dtype, args))
        measure.write(args.json, rows)


def compare(dtype: str, args) -> dict:
    """Times the sides; returns a row."""
    case = competitors.Case(
        work="infer",
        geometry=args.geometry,
        size=(500, 500),
        batch=args.batch,
        dtype=dtype,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = competitors.write_parameters(case, folder)
        common = (case, path, args.images, args.readers)
        with measure.sides(
            ours=(ours, *common),
            one=(theirs, *common, 1),
            batched=(theirs, *common, args.batch),
        ) as sides:
            times = measure.take_turns(sides, args.rounds, run_up=0)
            counts = {name: side.result() for name, side in sides.items()}
            peaks = {name: side.peak_gib() for name, side in sides.items()}
    total = counts["ours"].sum()
    moved = {
        n: float(abs(c - counts["ours"]).sum() / 2 / total) for n, c in counts.items()
    }
    if not moved["one"] <= TOLERANCE[dtype]:
        raise SystemExit(
            f"Of the pixels, {moved['one']:.2g} are counted elsewhere one at a time; "
            f"more than {TOLERANCE[dtype]}: the sides do not compute the same."
        )
    row = case.row() | {"images": args.images, "readers": args.readers}
    print(f"{args.images} images, FCN-8s, {args.geometry}, {dtype}")
    for name, title in (
        ("ours", f"ours, batches of {args.batch}"),
        ("one", "PyTorch, one at a time"),
        ("batched", f"PyTorch, padded batches of {args.batch}"),
    ):
        row[name] = times[name] | {"gib": peaks[name], "moved": moved[name]}
        row[f"ratio_{name}"] = times["ours"]["median"] / times[name]["median"]
        print(
            f"  {title:<32} {measure.shown(times[name])}, "
            f"{args.images / times[name]['median']:.2f} images/s, "
            f"{peaks[name]:.2f} GiB, ours / it {row[f'ratio_{name}']:.2f}, "
            f"{moved[name]:.1e} of the pixels counted elsewhere"
        )
    return row


if __name__ == "__main__":
    main()
