"""Whole runs on a tiny data set: training, resuming, scoring, predicting."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import example_folders
import jax
import numpy as np
import pytest
from example_runs import CLASSES, ROOT, flags, score, tiny_config, tiny_settings
from PIL import Image

from fcn_jax.data import images
from fcn_jax.evaluation import predict, trained
from fcn_jax.training import checkpoints, loop


def log_of(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def assert_same_state(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_a_run_leaves_what_it_promises(folder, whole):
    workdir, state = whole
    assert int(state.step) == 6
    assert json.loads((workdir / "config.json").read_text())["num_steps"] == 6
    steps = [line["step"] for line in log_of(workdir) if "train/loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    scored = [line["step"] for line in log_of(workdir) if "val/mean_iou" in line]
    assert scored == [4, 6]
    kept = {int(p.name) for p in (workdir / "checkpoints").iterdir()}
    assert 6 in kept and kept <= {4, 6}  # The latest and the best.
    assert sorted(p.name for p in (workdir / "overlays").iterdir()) == [
        "d.png",
        "e.png",
    ]
    assert list((workdir / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "stop", [1, *(pytest.param(i, marks=pytest.mark.slow) for i in (2, 3)), 5]
)
def test_a_run_stopped_at_any_step_and_resumed_ends_the_same(
    folder, whole, stop, monkeypatch
):
    workdir = folder / f"stopped_{stop}"
    report = loop._Run._report

    def stop_after(self, step, *args):
        report(self, step, *args)
        if step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Run, "_report", stop_after)
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(tiny_config(folder), workdir)
    monkeypatch.undo()
    state = loop.train_and_evaluate(tiny_config(folder), workdir)
    assert_same_state(state, whole[1])
    assert log_of(workdir) == log_of(whole[0])


def test_a_killed_run_goes_on_by_itself(folder, whole):
    workdir = folder / "killed"
    command = [
        sys.executable,
        str(ROOT / "run_train.py"),
        f"--config={ROOT / 'configs/default.py'}",
        f"--workdir={workdir}",
        *flags(tiny_settings(folder) | {"compilation_cache": str(folder / "cache")}),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (workdir / "checkpoints/2").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (workdir / "checkpoints/2").exists()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout or "already" in done.stdout
    assert [
        p.name for p in (workdir / "checkpoints").iterdir() if "tmp" in p.name
    ] == []
    with checkpoints.open_folder(workdir, write=False) as checkpointer:
        variables = checkpoints.restore_variables(
            checkpointer, 6, jax.tree.map(lambda x: x, whole[1].variables)
        )
    assert_same_state(variables, whole[1].variables)
    assert log_of(workdir) == log_of(whole[0])


def test_two_devices_train_as_one(folder, whole):
    workdir = folder / "two_devices"
    settings = tiny_settings(folder) | {"compilation_cache": "", "num_steps": 6}
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "run_train.py"),
            f"--config={ROOT / 'configs/default.py'}",
            f"--workdir={workdir}",
            *flags(settings),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
    )
    assert done.returncode == 0, done.stderr
    assert "2 cpu device(s)" in done.stdout
    for a, b in zip(log_of(workdir), log_of(whole[0]), strict=True):
        assert a.keys() == b.keys()
        if "train/loss" in a:
            assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-3)


def test_a_finished_run_stays_as_it_is(folder, whole, capsys):
    workdir, state = whole
    before = (workdir / "metrics.jsonl").read_text()
    again = loop.train_and_evaluate(tiny_config(folder), workdir)
    assert_same_state(again, state)
    assert (workdir / "metrics.jsonl").read_text() == before
    assert "run_predict.py" in capsys.readouterr().out


def test_evaluation_gives_the_score_of_training_to_all_digits(folder, whole):
    workdir, _ = whole
    logged = {line["step"]: line for line in log_of(workdir) if "val/mean_iou" in line}
    scores, path = score(workdir)
    assert path.name == "eval_val_6.json"
    assert json.loads(path.read_text()) == scores
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iou"):
        assert scores[name] == logged[6][f"val/{name}"]
    assert scores["num_images"] == 2
    labelled = sum((example_folders.pixels(n)[1] != 255).sum() for n in "de")
    assert scores["num_pixels"] == labelled
    assert list(scores["iou_per_class"]) == CLASSES


def test_predictions_are_those_that_were_scored(folder, whole):
    workdir, _ = whole
    output = folder / "predicted"
    source = folder / "photos"
    source.mkdir()
    for name in "de":  # The validation images.
        image, _ = example_folders.pixels(name)
        example_folders.save(source / f"{name}.png", image)
    (source / "broken.jpg").write_bytes(b"no image")
    (source / "notes.txt").write_text("no image either")
    run_ = trained.load(workdir, "latest")
    failures = list(predict.predict_files(run_, predict.find_images(source), output))
    assert len(failures) == 1 and "broken.jpg" in failures[0]

    counts = np.zeros((3, 3), int)
    for name in "de":
        image, ids = example_folders.pixels(name)
        with Image.open(output / f"{name}_mask.png") as mask:
            assert mask.mode == "P" and mask.size == ids.shape[::-1]
            palette = np.reshape(mask.getpalette()[:9], (3, 3))
            predicted = np.asarray(mask)
        np.testing.assert_array_equal(palette, run_.palette[:3])
        with Image.open(output / f"{name}_overlay.png") as overlay:
            assert overlay.size == ids.shape[::-1]
        for t, p in zip(ids.ravel(), predicted.ravel(), strict=True):
            if t != 255:
                counts[t, p] += 1
    scores, _ = score(workdir)
    assert scores["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())


def test_photos_are_predicted_upright_and_large_ones_at_a_limit(folder, whole):
    run_ = trained.load(whole[0], "latest")
    upright = cv2.resize(example_folders.pixels("a")[0], (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored on its side.
    path = folder / "turned.png"
    Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    np.testing.assert_array_equal(
        images.read_image(path.read_bytes(), "turned", exif="apply"), upright
    )
    assert list(predict.predict_files(run_, [path], folder / "turned")) == []
    with Image.open(folder / "turned/turned_mask.png") as picture:
        mask = np.asarray(picture)
    predictor = predict.Predictor(run_)
    np.testing.assert_array_equal(mask, predictor([upright])[0])
    assert predict.Predictor(run_, max_side=30)([upright])[0].shape == (40, 60)
