"""What a user's mistakes get: one sentence, and nothing on disk is changed."""

import shutil

import pytest
from example_runs import CLASSES, ROOT, flags, run, score, tiny_config, tiny_settings

from fcn_jax.errors import UserError
from fcn_jax.evaluation import predict, trained
from fcn_jax.training import checkpoints, loop


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
        ({"seed": -1}, "seed=-1 must be 0 or more"),
        ({"seed": 2**32}, "seed=4294967296 must be at most 4294967295"),
        ({"loss__dice": float("nan")}, "loss.dice=nan must be finite"),
        ({"loss__dice": -1.0}, "weights of the loss"),
        ({"augment__scale": (1.0, float("inf"))}, "must be finite"),
        ({"augment__scale": ("nan", 1)}, "augment.scale=('nan', 1) must have numbers"),
        ({"optimizer__learning_rate": -1.0}, "optimizer.learning_rate=-1.0 must be 0"),
        ({"data__num_workers": -1}, "data.num_workers=-1 must be 0 or more"),
        ({"task": "panoptic"}, "task='panoptic' is not known"),
        ({"task": "multilabel", "thresholds": (0.005,)}, "thresholds=(0.005,)"),
        ({"mesh__data": 3}, "mesh.data=3"),
        ({"mesh__spatial": 2}, "do not multiply to the 1 device"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"model__stride": 4}, "model.stride=4"),
        ({"augment__scale": (2.0, 1.0)}, "scale range is (2.0, 1.0)"),
        ({"augment__crop": (0, 5)}, "crop is (0, 5)"),
        ({"augment__crop": (5,)}, "crop is (5,)"),
        ({"augment__scale": (1.0,)}, "scale range is (1.0,)"),
        ({"loss__label_smoothing": 1.0}, "loss.label_smoothing=1.0"),
        ({"loss__reduction": "max"}, "loss.reduction='max'"),
        ({"init_from": "vgg16-cafe"}, "init_from=vgg16-cafe: there is no such file"),
        ({"init_from": str(ROOT / "README.md")}, "README.md is of no known type"),
        ({"init_from": str(ROOT)}, "is no workdir, and no whole checkpoint"),
        ({"optimizer__multipliers": ((".*", 1.0),)}, "optimizer.multipliers has the"),
        ({"optimizer__multipliers": (("head", 1.0, 1.0),)}, "'head' is the first"),
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
        score(workdir)


@pytest.mark.parametrize("step", ["5", "first", "-1"])
def test_a_missing_step_is_named_with_those_that_exist(whole, step):
    with pytest.raises(UserError, match=rf"--step={step}.*6"):
        trained.load(whole[0], step)


def test_a_missing_workdir_split_and_input_are_named(folder, whole):
    with pytest.raises(UserError, match="holds no checkpoint"):
        trained.load(folder / "nowhere")
    assert not (folder / "nowhere").exists()
    with pytest.raises(UserError, match='no split "test".*train'):
        score(whole[0], "test")
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


def test_a_workdir_that_cannot_be_is_one_line(folder, whole):
    (folder / "file").touch()
    done = run(
        "run_train.py",
        f"--config={ROOT / 'configs/default.py'}",
        f"--workdir={folder / 'file/run'}",
        *flags(tiny_settings(folder)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(folder / "file") in done.stderr


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        ("run_train.py", ["--config=README.md"], "README.md is no config"),
        ("run_predict.py", ["--output="], "--output is empty"),
        ("run_predict.py", ["--input=https://a/b"], "is a URL; give a local path, or"),
        ("run_export.py", ["--output=gs://a/b"], "is a URL; give a local path."),
    ],
)
def test_a_place_that_cannot_be_is_one_line(script, args, message):
    done = run(script, *args)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
