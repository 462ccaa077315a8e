"""Measures the training input: decode, scale, crop, flip, colours, batch.

    python benchmarks/input_pipeline.py                       # generated JPEGs
    python benchmarks/input_pipeline.py --source=DIR --image_scale=0.5 --crop=180,240
    python benchmarks/input_pipeline.py --workers=0,2,4 --threads=1,2 --json=input.json

Images per second by the number of worker processes (0: none beside the program's own)
and of reading threads in each, with nothing else to do: what training can draw at most,
on a machine that is otherwise idle.
"""

import itertools
import json
import os
import pathlib
import platform
import statistics
import time

import cv2
import grain
import numpy as np
from absl import app, flags

from fcn_jax import errors
from fcn_jax.data import datasets, pipeline, transforms

_SOURCE = flags.DEFINE_string(
    "source", "", "A `folder` data set; empty: JPEGs made on the spot."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "data", "Where the data set is prepared, if --source is given."
)
_SPLIT = flags.DEFINE_string("split", "train", "Its split.")
_SIZE = flags.DEFINE_list("size", ["375", "500"], "Height and width of made JPEGs.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 64, "Number of made JPEGs.")
_CROP = flags.DEFINE_list("crop", ["512", "512"], "Height and width of the crops.")
_IMAGE_SCALE = flags.DEFINE_float("image_scale", 1.0, "Factor on the random scale.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images in a batch.")
_WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "Worker processes to try.")
_THREADS = flags.DEFINE_list("threads", ["1", "2"], "Reading threads in each, to try.")
_BATCHES = flags.DEFINE_integer("batches", 30, "Batches in one measurement.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Measurements, for median and spread.")
_JSON = flags.DEFINE_string("json", "", "File for the result; empty: none.")


def make_records(height: int, width: int, count: int) -> list[dict]:
    """Makes records of clouds and discs: JPEGs at quality 90 and masks of 21 classes.

    Noise at several scales compresses about as well as photographs do; plain noise
    would take several times as long to decode.
    """
    rng = np.random.default_rng(0)
    records = []
    for index in range(count):
        image = np.zeros((height, width, 3), np.float32)
        for octave in range(1, 9):
            shape = (height * 2**octave // 256 + 2, width * 2**octave // 256 + 2, 3)
            noise = rng.normal(size=shape).astype(np.float32)
            noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
            image += noise * 48 / 1.6**octave
        mask = np.zeros((height, width), np.uint8)
        for class_id in rng.integers(1, 21, size=6):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            radius = int(rng.integers(height // 12 + 1, height // 4 + 2))
            cv2.circle(mask, centre, radius, int(class_id), -1)
            cv2.circle(mask, centre, radius, 255, 5)
        image = np.clip(image + 120, 0, 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        records.append(
            {
                "image": cv2.imencode(".jpg", image, quality)[1].tobytes(),
                "mask": cv2.imencode(".png", mask)[1].tobytes(),
                "name": str(index),
            }
        )
    return records


def measure(
    source, augment: transforms.Augment, num_workers: int, num_threads: int
) -> list[float]:
    """Returns images per second, once for each repeat."""
    batches = pipeline.train_batches(
        source,
        augment=augment,
        batch_size=_BATCH_SIZE.value,
        seed=0,
        num_workers=num_workers,
        num_threads=num_threads,
        prefetch=2 * num_threads,
    )
    rates = []
    # What was made ready before the clock started must not count.
    warm_up = 2 + 4 * max(1, num_workers) * num_threads
    for _ in itertools.islice(batches, warm_up):
        pass
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        for _ in itertools.islice(batches, _BATCHES.value):
            pass
        seconds = time.perf_counter() - start
        rates.append(_BATCHES.value * _BATCH_SIZE.value / seconds)
    batches.close()
    return rates


def run() -> dict:
    """Measures every number of workers, prints a table and returns the result."""
    size = tuple(int(value) for value in _SIZE.value)
    crop = tuple(int(value) for value in _CROP.value)
    if _SOURCE.value:
        dataset = datasets.load(
            "folder", source=_SOURCE.value, data_dir=_DATA_DIR.value
        )
        source = dataset.split(_SPLIT.value).source
        what = f"{len(source)} images of {_SOURCE.value}"
    else:
        source = make_records(*size, _NUM_IMAGES.value)
        what = f"{len(source)} made JPEGs of {size[0]}x{size[1]}"
    augment = transforms.Augment(crop=crop, image_scale=_IMAGE_SCALE.value)
    print(
        f"{what}, scale {_IMAGE_SCALE.value:g}, crops of {crop[0]}x{crop[1]}, "
        f"batch {_BATCH_SIZE.value}, {os.cpu_count()} cores"
    )
    print("workers  threads  images/s: median (lowest to highest)")
    results = []
    for counts in itertools.product(_WORKERS.value, _THREADS.value):
        num_workers, num_threads = map(int, counts)
        rates = measure(source, augment, num_workers, num_threads)
        result = {
            "workers": num_workers,
            "threads": num_threads,
            "median": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
        }
        results.append(result)
        print(
            f"{num_workers:7}  {num_threads:7}  {result['median']:8.0f} "
            f"({result['lowest']:.0f} to {result['highest']:.0f})",
            flush=True,
        )
    return {
        "data": what,
        "image_scale": _IMAGE_SCALE.value,
        "crop": crop,
        "batch_size": _BATCH_SIZE.value,
        "batches": _BATCHES.value,
        "repeats": _REPEATS.value,
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "grain": grain.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
        "images_per_second": results,
    }


def main(_) -> None:
    """Runs the benchmark."""
    try:
        result = run()
    except errors.UserError as error:
        raise SystemExit(f"{error}") from None
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
