"""Pictures, tables and logs, read back by other means than they were written."""

import json
import math
import re
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from fcn_jax.data import labels
from fcn_jax.reporting import colors, log, table

PALETTE = labels.voc_palette()


def ids(*shape, classes=4):
    made = np.random.default_rng(0).integers(classes, size=shape).astype(np.uint8)
    made[:2] = 255
    return made


def test_colorize_looks_up_every_pixel():
    mask = ids(5, 7)
    picture = colors.colorize(mask, PALETTE)
    assert picture.dtype == np.uint8
    for i in range(5):
        for j in range(7):
            assert tuple(picture[i, j]) == tuple(PALETTE[mask[i, j]])


def test_overlay_mixes_classes_and_spares_void():
    image = np.random.default_rng(1).integers(256, size=(6, 5, 3)).astype(np.uint8)
    mask = ids(6, 5)
    mixed = colors.overlay(image, mask, PALETTE, alpha=0.3)
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(mixed[:2], image[:2])
    want = 0.7 * image[2:].astype(float) + 0.3 * PALETTE[mask[2:]].astype(float)
    assert np.abs(mixed[2:] - want).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(colors.overlay(image, mask, PALETTE, alpha=0), image)


@pytest.mark.parametrize("shape", [(96, 96), (360, 480), (700, 1000), (300, 20)])
def test_panel_shows_the_three_pictures_and_the_legend(shape):
    pink = (250, 99, 200)
    image = np.full((*shape, 3), pink, np.uint8)
    truth, prediction = np.ones(shape, np.uint8), np.full(shape, 2, np.uint8)
    truth[0] = 255
    names = ("a", "b", "c", "d")
    panel = colors.panel(image, truth, prediction, PALETTE, names)
    assert panel.dtype == np.uint8
    factor = max(1, math.ceil(256 / max(shape)))
    area = factor**2 * shape[0] * shape[1]

    def count(color):
        return np.sum(np.all(panel == color, axis=-1))

    assert count(pink) == area
    # Each class has its picture and a swatch beside its name; absent ones have none.
    swatch = count(PALETTE[2]) - area
    assert 100 < swatch < 10_000
    assert count(PALETTE[1]) == area - factor**2 * shape[1] + swatch
    assert count(PALETTE[255]) == factor**2 * shape[1] + swatch
    assert count(PALETTE[3]) == count(PALETTE[0]) == 0
    # The truth stands between the others.
    middles = [
        np.nonzero(np.all(panel == color, axis=-1))[1].mean()
        for color in (pink, PALETTE[1], PALETTE[2])
    ]
    assert middles == sorted(middles)


def test_panel_has_room_for_many_long_names():
    mask = np.arange(21, dtype=np.uint8)[:, None].repeat(3, 1)
    names = [f"a class with quite a long name, number {i}" for i in range(21)]
    panel = colors.panel(np.zeros((21, 3, 3), np.uint8), mask, mask, PALETTE, names)
    short = colors.panel(
        np.zeros((21, 3, 3), np.uint8), mask, mask, PALETTE, ["x"] * 21
    )
    assert panel.shape[0] > short.shape[0] and panel.shape[1] > short.shape[1]
    # Nothing is cut off at the right or at the bottom.
    assert (panel[:, -2:] == 255).all() and (panel[-2:] == 255).all()


def test_saved_mask_keeps_ids_and_shows_colors(tmp_path):
    mask = ids(9, 4)
    path = tmp_path / "mask.png"
    colors.save_mask(path, mask, PALETTE)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(picture.convert("RGB"), PALETTE[mask])


def test_saved_image_is_whole_or_absent(tmp_path):
    image = np.random.default_rng(1).integers(256, size=(3, 5, 3)).astype(np.uint8)
    path = tmp_path / "image.png"
    colors.save_image(str(path), image)
    np.testing.assert_array_equal(Image.open(path), image)
    with pytest.raises(TypeError):
        colors.save_image(path, image.astype(np.float64))
    np.testing.assert_array_equal(Image.open(path), image)
    assert [p.name for p in tmp_path.iterdir()] == ["image.png"]


SCORES = {
    "pixel_accuracy": 0.91234,
    "mean_accuracy": 0.8,
    "mean_iou": 0.75,
    "frequency_weighted_iou": 0.7,
    "iou_per_class": {"sky": 0.5, "traffic light": 1.0, "car": None},
    "accuracy_per_class": {"sky": 0.25, "traffic light": 1.0, "car": None},
    "pixels_per_class": {"sky": 1, "traffic light": 3, "car": 0},
    "num_images": 1449,
    "num_pixels": 4,
}


def test_table_has_every_score_in_aligned_columns():
    text = table.per_class_table(("sky", "traffic light", "car"), SCORES)
    lines = text.splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines]
    assert cells[0] == ["class", "IoU", "accuracy", "pixels"]
    assert cells[2] == ["sky", "0.5000", "0.2500", "25.00%"]
    assert cells[3] == ["traffic light", "1.0000", "1.0000", "75.00%"]
    assert cells[4] == ["car", "-", "-", "0.00%"]
    assert ["pixel accuracy", "0.9123"] in cells
    assert ["mean accuracy", "0.8000"] in cells
    assert ["mean IoU", "0.7500"] in cells
    assert ["frequency-weighted IoU", "0.7000"] in cells
    assert lines[-1] == "1,449 images, 4 labelled pixels"
    assert len({len(line) for line in lines[:6]}) == 1
    ends = {
        line.index(value) + 6
        for line in lines
        for value in ("0.5000", "0.7500")
        if value in line
    }
    assert len(ends) == 1


def test_table_of_nothing_has_no_shares():
    none = dict.fromkeys(SCORES["pixels_per_class"], 0)
    empty = SCORES | {"pixels_per_class": none, "num_pixels": 0}
    text = table.per_class_table(tuple(SCORES["iou_per_class"]), empty)
    assert "%" not in text


def read_lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def read_events(workdir):
    """Reads TensorBoard's files by their format: length, crc, event, crc."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_scalars_and_images_are_logged(tmp_path):
    picture = np.random.default_rng(1).integers(256, size=(4, 6, 3)).astype(np.uint8)
    with log.RunLog(tmp_path / "run") as run:
        run.scalars(1, {"loss": np.float32(0.5), "images": np.int64(3)})
        # Flushed: a killed run leaves it.
        assert read_lines(tmp_path / "run") == [{"step": 1, "loss": 0.5, "images": 3}]
        run.scalars(2, {"loss": math.nan, "iou/car": None})
        run.images(2, {"val/one": picture})
    assert read_lines(tmp_path / "run")[1] == {"step": 2, "loss": None, "iou/car": None}
    values = [
        (e.step, v) for e in read_events(tmp_path / "run") for v in e.summary.value
    ]
    assert [(step, v.tag) for step, v in values] == [
        (1, "loss"),
        (1, "images"),
        (2, "val/one"),
    ]
    assert values[0][1].simple_value == 0.5
    assert (values[2][1].image.height, values[2][1].image.width) == (4, 6)


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    with log.RunLog(tmp_path) as run:
        for step in range(1, 6):
            run.scalars(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    with log.RunLog(tmp_path, resume_step=3) as run:
        assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3]
        run.scalars(4, {"loss": 40})
    assert [line["loss"] for line in read_lines(tmp_path)] == [1, 2, 3, 40]
    # TensorBoard hides what it had of the step that a new session starts with, and on.
    starts = [e.step for e in read_events(tmp_path) if e.HasField("session_log")]
    assert starts[-1] == 4
    with log.RunLog(tmp_path):
        assert read_lines(tmp_path) == []
    assert not list(tmp_path.glob("*.part"))


def test_progress_counts_images_but_not_pauses():
    now = [100.0]
    progress = log.Progress(1000, 16, 200, clock=lambda: now[0])
    now[0] += 50
    line = progress.line(300, {"loss": 0.61234, "lr": 9.2e-3}, 50)
    assert line == (
        "step 300/1000  epoch 6.0  loss 0.6123  lr 9.2e-03  32.0 images/s  ETA 5m 50s"
    )
    now[0] += 20
    with progress.pause():
        now[0] += 40
    now[0] += 30
    line = progress.line(400, {}, 50)
    # Half a second a step, as before; and 40 s of pauses in 200 steps for 600 more.
    assert "  32.0 images/s  ETA 7m 00s" in line
    now[0] += 10
    # One pause in 300 steps now; what was paused before the interval is not taken off.
    assert "  160 images/s  ETA 1m 57s" in progress.line(500, {}, 50)
    with pytest.raises(KeyError), progress.pause():
        now[0] += 1000
        raise KeyError
    now[0] += 50
    line = progress.line(1000, {}, 50)
    assert line == "step 1000/1000  epoch 20.0  160 images/s  ETA 0s"
    # Nothing since then: no rate, and no division by zero.
    assert progress.line(1000, {}, 50) == "step 1000/1000  epoch 20.0"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (2470, "41m 10s"),
        (3599.6, "1h 00m"),
        (7500, "2h 05m"),
        (90000, "1d 01h"),
    ],
)
def test_durations_are_short(seconds, words):
    assert log.duration(seconds) == words


MASKS = np.array([[[1, 0], [1, 1]], [[0, 0], [255, 0]]], np.uint8)  # [2, 2, 2]


def test_classes_that_share_a_pixel_mix_their_colours():
    palette = np.zeros((256, 3), np.uint8)
    palette[:2] = (200, 0, 0), (0, 100, 50)
    found = colors.colorize(MASKS, palette).tolist()
    assert found == [[[200, 0, 0], [100, 50, 25]], [[0, 0, 0], [0, 0, 0]]]
    image = np.full((2, 2, 3), 10, np.uint8)
    found = colors.overlay(image, MASKS, palette, alpha=0.5).tolist()
    assert found == [[[105, 5, 5], [55, 30, 18]], [[10, 10, 10], [10, 10, 10]]]


def test_a_panel_of_many_labels_names_those_that_occur():
    names, palette = ("crack", "rust"), np.zeros((256, 3), np.uint8)
    palette[:2] = (200, 0, 0), (0, 100, 50)
    image = np.zeros((2, 2, 3), np.uint8)
    both = colors.panel(image, MASKS, MASKS, palette, names)
    assert (both == (0, 100, 50)).all(-1).any()  # The square of rust's legend.
    only = MASKS * np.array([1, 0], np.uint8)
    one = colors.panel(image, only, only, palette, names)
    assert not (one == (0, 100, 50)).all(-1).any()


def test_table_of_many_labels():
    scores = {
        "pixel_accuracy": 0.9,
        "mean_iou": 0.5,
        "mean_dice": 0.625,
        "iou_per_class": {"crack": 0.25, "rust": None},
        "dice_per_class": {"crack": 0.4, "rust": None},
        "precision_per_class": {"crack": 0.5, "rust": None},
        "recall_per_class": {"crack": 1.0, "rust": None},
        "threshold_per_class": {"crack": 0.5, "rust": 0.35},
        "best_threshold_per_class": {"crack": 0.61, "rust": None},
        "best_iou_per_class": {"crack": 0.3, "rust": None},
        "pixels_per_class": {"crack": 3, "rust": 0},
        "num_images": 2,
        "num_pixels": 24,
    }
    lines = table.per_class_table(("crack", "rust"), scores).splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines]
    assert cells[0][1:] == [
        *("IoU", "Dice", "precision", "recall", "threshold", "best", "pixels"),
    ]
    assert cells[2] == [
        *("crack", "0.2500", "0.4000", "0.5000", "1.0000", "0.50", "0.61", "25.00%"),
    ]
    assert cells[3] == ["rust", "-", "-", "-", "-", "0.35", "-", "0.00%"]
    assert ["mean Dice", "0.6250"] in cells
    assert len({len(line) for line in lines[:5]}) == 1
