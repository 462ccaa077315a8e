"""Whole runs on a tiny data set: training, resuming, scoring, predicting, failing."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import cv2
import example_folders
import jax
import numpy as np
import pytest
from PIL import Image

from configs import default
from fcn_jax.data import images
from fcn_jax.errors import UserError
from fcn_jax.evaluation import evaluate, predict, trained
from fcn_jax.training import checkpoints, loop

ROOT = pathlib.Path(__file__).parents[1]
CLASSES = ["ground", "house", "tree"]


def tiny_settings(folder):
    """Overrides, as on the command line, for seconds on one core."""
    return {
        "data.name": "folder",
        "data.source": str(folder / "source"),
        "data.dir": str(folder / "data"),
        "data.num_threads": 1,
        "augment.crop": (32, 32),
        "augment.scale": (1.0, 3.0),
        "model.depth": 11,
        "model.width": 0.03125,
        "model.batch_norm": True,
        "model.score_init": "lecun_normal",  # Predictions differ from the first step.
        "optimizer.name": "adam",
        "optimizer.learning_rate": 0.003,
        "optimizer.warmup_steps": 2,
        "batch_size": 2,
        "eval_batch_size": 2,
        "num_steps": 6,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
        "num_overlays": 2,
        "compilation_cache": "",
    }


def tiny_config(folder, **changes):
    config = default.get_config()
    config.update_from_flattened_dict(
        tiny_settings(folder) | {k.replace("__", "."): v for k, v in changes.items()}
    )
    return config


def flags(settings):
    return [f"--config.{name}={value}" for name, value in settings.items()]


def run(script, *args):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set, the compilation cache, and one undisturbed run of six steps."""
    folder = tmp_path_factory.mktemp("runs")
    example_folders.make_voc(folder / "source")
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module")
def whole(folder):
    workdir = folder / "whole"
    return workdir, loop.train_and_evaluate(tiny_config(folder), workdir)


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


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
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
    scores, path = evaluate.evaluate_run(trained.load(workdir, "latest"), workdir)
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
    scores, _ = evaluate.evaluate_run(trained.load(workdir, "latest"), workdir)
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
    np.testing.assert_array_equal(mask, predictor(upright))
    assert predict.Predictor(run_, max_side=30)(upright).shape == (40, 60)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_good(folder):
    workdir = folder / "exploding"
    config = tiny_config(
        folder,
        optimizer__name="sgd",
        optimizer__learning_rate=1e25,
        optimizer__warmup_steps=0,
        model__batch_norm=False,
        model__score_init="lecun_normal",
        checkpoint_every=1,
    )
    with pytest.raises(UserError, match=r"(at|after) step \d.*is kept|are kept"):
        loop.train_and_evaluate(config, workdir)
    saved = [p for p in (workdir / "checkpoints").iterdir()]
    with checkpoints.open_folder(workdir, write=False) as checkpointer:
        for path in saved:
            metadata = checkpoints.read_metadata(checkpointer, int(path.name))
            assert metadata["class_names"] == CLASSES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 3, "accumulation_steps": 2}, "batch_size=3 does not divide"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"model__stride": 4}, "model.stride=4"),
        ({"augment__scale": (2.0, 1.0)}, "scale range is (2.0, 1.0)"),
        ({"augment__crop": (0, 5)}, "crop is (0, 5)"),
        ({"loss__label_smoothing": 1.0}, "loss.label_smoothing=1.0"),
        ({"loss__class_weights": "1,2"}, "loss.class_weights='1,2'"),
        ({"optimizer__name": "lion"}, "optimizer.name='lion'"),
        ({"optimizer__schedule": "step"}, "optimizer.schedule='step'"),
        ({"trainable": "head"}, "trainable='head'"),
        ({"data__name": "cityscapes"}, '"cityscapes"'),
        ({"data__train_split": "trainval"}, '"trainval"'),
        ({"data__image_scale": 0.0}, "image scale is 0.0"),
        ({"data__source": "/nowhere"}, "/nowhere"),
    ],
)
def test_bad_settings_are_named_before_anything_is_written(folder, changes, message):
    workdir = folder / "never"
    with pytest.raises(UserError) as error:
        loop.train_and_evaluate(tiny_config(folder, **changes), workdir)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__width": 0.0625}, "model.width (0.03125 there, 0.0625 now)"),
        ({"model__depth": 13}, "model.depth (11 there, 13 now)"),
        ({"num_steps": 9}, "num_steps (6 there, 9 now)"),
    ],
)
def test_another_runs_workdir_is_refused(folder, whole, changes, message):
    before = sorted(p for p in whole[0].rglob("*"))
    with pytest.raises(UserError, match="another run") as error:
        loop.train_and_evaluate(tiny_config(folder, **changes), whole[0])
    assert message in str(error.value)
    assert sorted(p for p in whole[0].rglob("*")) == before


def test_a_changed_list_of_classes_is_refused(folder, whole):
    other = folder / "other"
    shutil.copytree(folder / "source", other / "source")
    (other / "source/classes.txt").write_text("ground\nhouse\nbush\n")
    workdir = other / "run"
    shutil.copytree(whole[0], workdir)
    config = tiny_config(folder, data__source=str(other / "source"))
    # The same run, moved: only the classes differ.
    for checkpoint in (workdir / "checkpoints").iterdir():
        path = checkpoint / "_CHECKPOINT_METADATA"
        path.write_text(
            path.read_text().replace(str(folder / "source"), str(other / "source"))
        )
    with pytest.raises(UserError, match="house, tree.*house, bush"):
        loop.train_and_evaluate(config, workdir)
    with pytest.raises(UserError, match="house, tree.*house, bush"):
        evaluate.evaluate_run(trained.load(workdir, "latest"), workdir)


@pytest.mark.parametrize("step", ["5", "first", "-1"])
def test_a_missing_step_is_named_with_those_that_exist(whole, step):
    with pytest.raises(UserError, match=rf"--step={step}.*6"):
        trained.load(whole[0], step)


def test_a_missing_workdir_split_and_input_are_named(folder, whole):
    with pytest.raises(UserError, match="holds no checkpoint"):
        trained.load(folder / "nowhere")
    assert not (folder / "nowhere").exists()
    with pytest.raises(UserError, match='no split "test".*train'):
        evaluate.evaluate_run(trained.load(whole[0], "latest"), whole[0], "test")
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no images"):
        predict.find_images(empty)
    with pytest.raises(UserError, match="does not exist"):
        predict.find_images(folder / "gone.jpg")
    for name in ("x.png", "x.jpg"):
        (empty / name).touch()
    with pytest.raises(UserError, match=r"x\.jpg and x\.png"):
        predict.find_images(empty)


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        ("run_train.py", ["--config=configs/fcn8.py"], "configs/fcn8s.py?"),
        (
            "run_train.py",
            ["--config=configs/fcn8s.py", "--config.batchsize=3"],
            "batch_size",
        ),
        (
            "run_train.py",
            ["--config", "configs/fcn8s.py", "--config.data.sauce=x"],
            "data.source?",
        ),
        ("run_train.py", [], "--config is missing"),
        (
            "run_train.py",
            ["--config=configs/fcn8s.py", "--config.num_steps=many"],
            "many",
        ),
        ("run_eval.py", ["--workdir=nowhere"], "nowhere"),
        ("run_predict.py", ["--workdir=nowhere"], "--input is missing"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(script, args, message):
    done = run(script, *args)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
