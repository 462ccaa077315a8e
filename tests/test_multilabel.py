"""Several classes a pixel, from the folder to scores; checkpoints of older runs."""

import json
import shutil

import jax
import numpy as np
import pytest
from example_folders import SIZES, pixels, save
from example_runs import score, tiny_config

from fcn_jax.data import transforms
from fcn_jax.errors import UserError
from fcn_jax.evaluation import trained
from fcn_jax.training import inputs, loop, resume

NAMES = ("house", "roof")


@pytest.fixture(scope="module")
def many(folder):
    """A finished run on a set where every roof lies on a house."""
    source = folder / "many"
    for name in SIZES:
        image, ids = pixels(name)
        save(source / f"images/{name}.png", image)
        save(source / f"masks/house/{name}.png", np.isin(ids, (1, 2)) * np.uint8(255))
        save(source / f"masks/roof/{name}.png", (ids == 2).astype(np.uint8))
    (source / "masks/roof/b.png").unlink()
    config = tiny_config(
        folder,
        data__source=str(source),
        data__missing_masks="void",
        task="multilabel",
        thresholds=(0.5, 0.45),
        loss__dice=1.0,
        loss__class_weights="median_frequency",
    )
    workdir = folder / "many_run"
    state = loop.train_and_evaluate(config, workdir)
    return config, workdir, state


def test_the_scores_are_those_of_the_predictions(many):
    config, workdir, state = many
    scores, path = score(workdir)
    assert json.loads(path.read_text()) == scores
    run = trained.load(workdir, "latest")
    dataset = inputs.load_dataset(config, ("train", "val"))
    both, either = np.zeros(2), np.zeros(2)
    for record in dataset.split("val").source:
        decoded = transforms.decode(record, 2)
        logits = np.asarray(run.model.apply(run.variables, decoded["image"][None])[0])
        present = 1 / (1 + np.exp(-logits.astype(float))) >= (0.5, 0.45)
        truth, known = decoded["label"] == 1, decoded["label"] != 255
        both += (present & truth).sum((0, 1))
        either += ((present & known) | truth).sum((0, 1))
    for name, a, b in zip(NAMES, both, either, strict=True):
        assert scores["iou_per_class"][name] == pytest.approx(a / b if b else None)
    assert list(scores["threshold_per_class"].values()) == [0.5, 0.45]
    assert len(list((workdir / "overlays").iterdir())) == 1


def test_another_threshold_gives_other_masks(many, whole):
    _, workdir, _ = many
    with pytest.raises(UserError, match="--thresholds are for multilabel"):
        trained.load(whole[0], thresholds=(0.5,))
    low = trained.load(workdir, "latest", thresholds=(0.01,))
    logits = np.random.default_rng(0).normal(size=(5, 5, 2)).astype(np.float32)
    assert low.task.classify(logits).all()
    assert not trained.load(workdir, "latest").task.classify(logits - 9).any()
    with pytest.raises(UserError, match="one for each of the 2 classes"):
        trained.load(workdir, "latest", thresholds=(0.1, 0.2, 0.3))


def test_every_term_of_the_loss_is_logged(many):
    lines = map(json.loads, (many[1] / "metrics.jsonl").read_text().splitlines())
    logged = [line for line in lines if "train/dice" in line]
    assert len(logged) == 6
    for line in logged:
        total = line["train/cross_entropy"] + line["train/dice"]
        assert line["train/loss"] == pytest.approx(total, rel=1e-6)


def test_the_task_cannot_change_in_a_run(many):
    config, workdir, _ = many
    other = config.copy_and_resolve_references()
    other.task = "semantic"
    with pytest.raises(UserError, match=r"task \('multilabel' there, 'semantic' now\)"):
        loop.train_and_evaluate(other, workdir)


def test_random_weights_take_mean_and_deviation_of_the_images(many):
    config, workdir, _ = many
    split = inputs.load_dataset(config, ("train", "val")).split("train")
    _, saved = resume.find(workdir, "latest")
    np.testing.assert_allclose(saved["mean"], split.mean)
    np.testing.assert_allclose(saved["std"], split.std)


def test_a_run_of_an_older_version_goes_on(folder, whole, tmp_path):
    """Its checkpoints lack the settings that came later."""
    workdir = tmp_path / "old"
    shutil.copytree(whole[0], workdir)
    for checkpoint in (workdir / "checkpoints").iterdir():
        path = checkpoint / "_CHECKPOINT_METADATA"
        text = path.read_text()
        metadata = json.loads(text)
        config = metadata["custom_metadata"]["config"]
        del config["task"], config["thresholds"]
        for name in ("label_map", "intensity_range", "missing_masks"):
            del config["data"][name]
        for name in ("cross_entropy", "focal", "dice", "ohem", "focal_gamma"):
            del config["loss"][name]
        del config["loss"]["ohem_fraction"]
        path.write_text(json.dumps(metadata))
    assert trained.load(workdir).task.multilabel is False
    state = loop.train_and_evaluate(tiny_config(folder), workdir)
    jax.tree.map(np.testing.assert_array_equal, state.params, whole[1].params)


def test_many_labels_need_folders_of_masks(folder, parallel):
    config = tiny_config(folder, data__source=str(parallel), task="multilabel")
    with pytest.raises(UserError, match="has no folders"):
        loop.train_and_evaluate(config, folder / "never")
