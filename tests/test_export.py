"""An exported network gives the network's logits, without the project."""

import dataclasses
import json
import runpy
import shutil
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from example_runs import CLASSES, run
from PIL import Image

from fcn_jax.data import images
from fcn_jax.errors import UserError
from fcn_jax.evaluation import predictor, tasks, trained
from fcn_jax.export import stablehlo
from fcn_jax.models import fcn
from fcn_jax.training import state

pytest.importorskip("flatbuffers")

# Whoever imports one of these from here on, fails.
BLOCKED = """
import runpy, sys
for name in ("fcn_jax", "flax", "tensorflow", "orbax", "cv2"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def consume(folder, picture, mask):
    script = folder / "predict.py"
    command = [sys.executable, "-c", BLOCKED, str(script), str(picture), str(mask)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def make_network(num_classes=3, **fields):
    """A network of random weights, as if it had been trained."""
    model = fcn.create(
        num_classes, width=1 / 32, score_init="lecun_normal", dtype="float32", **fields
    )
    variables = jax.jit(lambda k: state.init_variables(model, k))(jax.random.key(3))
    return model, variables


def exported(whole, model, variables, **changes):
    loaded = trained.load(whole[0])
    fields = {"model": model, "variables": variables} | changes
    return dataclasses.replace(loaded, **fields)


def read_back(network):
    """What is left of an exported network on disk."""
    return jax.export.deserialize(stablehlo.trace(network).serialize())


@pytest.mark.parametrize(
    ("fields", "shapes"),
    [
        ({"stride": 8, "batch_norm": True}, [(1, 1, 1), (1, 17, 33), (3, 64, 48)]),
        ({"stride": 16, "upsampling": "resize"}, [(2, 40, 19)]),
        ({"stride": 8, "geometry": "caffe", "upsampling": "learned"}, [(1, 17, 33)]),
    ],
    ids=["same", "resize", "caffe"],
)
def test_one_program_gives_the_logits_of_any_size(whole, fields, shapes):
    model, variables = make_network(depth=11, **fields)
    network = exported(whole, model, variables)
    program, weights = read_back(network), stablehlo.flat(network)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    apply, rng = jax.jit(model.apply), np.random.default_rng(0)
    for shape in shapes:
        images = rng.integers(0, 256, (*shape, 3), np.uint8)
        expected = apply(variables, images)
        logits = program.call(weights, images)
        assert logits.dtype == np.float32 and logits.shape == (*shape, 3)
        assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_network_of_bfloat16_is_exported_in_float32(whole):
    model, variables = make_network(depth=11, stride=32)
    images = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
    expected = model.apply(variables, images)
    network = exported(whole, model.clone(dtype=jax.numpy.bfloat16), variables)
    logits = read_back(network).call(stablehlo.flat(network), images)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.fixture(scope="module")
def made(whole, tmp_path_factory):
    """Of the run, written as a user does."""
    folder = tmp_path_factory.mktemp("export") / "exported"
    done = run("run_export.py", f"--workdir={whole[0]}", f"--output={folder}")
    assert done.returncode == 0, done.stderr
    assert "predict.py IMAGE MASK.png" in done.stdout
    return folder


def test_the_script_beside_it_gives_the_masks_of_the_run(whole, made, tmp_path):
    about = json.loads((made / "model.json").read_text())
    loaded = trained.load(whole[0])
    assert about["class_names"] == CLASSES and about["step"] == loaded.name
    assert (about["task"], about["image_scale"]) == ("semantic", 1.0)
    image = np.random.default_rng(1).integers(0, 256, (37, 51, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    consume(made, tmp_path / "photo.png", tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        colours = np.array(mask.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(colours, loaded.palette)
        expected = loaded.task.classify(
            loaded.model.apply(loaded.variables, image[None])
        )
        np.testing.assert_array_equal(np.asarray(mask), expected[0])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("grey of 16 bits.tif", {}),
        ("grey of 12 bits.png", {"intensity_range": (0, 4095)}),
        ("transparent.png", {}),
        ("turned.jpg", {}),
    ],
)
def test_the_script_reads_pictures_as_the_project_does(
    whole, made, tmp_path, monkeypatch, name, settings
):
    rng, picture = np.random.default_rng(2), tmp_path / name
    if name.startswith("grey"):
        bits = 12 if settings else 16
        image = Image.fromarray(rng.integers(0, 2**bits, (40, 52), np.uint16))
    else:
        shape = (40, 52, 4 if name == "transparent.png" else 3)
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6 if name == "turned.jpg" else 1  # A quarter turn.
    image.save(picture, exif=exif)

    network = trained.load(whole[0])
    network.config.data.update(settings)
    pixels = images.read_image(
        picture.read_bytes(),
        name,
        exif="apply",
        intensity_range=network.config.data.intensity_range,
    )
    expected = predictor.Predictor(network)([pixels])[0]
    copy = shutil.copytree(made, tmp_path / "copy")
    about = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(about | settings))
    arguments = [str(copy / "predict.py"), str(picture), str(tmp_path / "mask.png")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(arguments[0], run_name="__main__")
    with Image.open(tmp_path / "mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected)


def test_the_script_writes_a_mask_for_each_of_many_labels(whole, tmp_path):
    model, variables = make_network(depth=11, stride=32)
    task = tasks.make("multilabel", 3, (0.5, 0.48, 0.52))
    network = exported(whole, model, variables, task=task)
    network.config.task = "multilabel"
    folder = stablehlo.write(network, tmp_path / "exported")
    image = np.random.default_rng(1).integers(0, 256, (37, 51, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    consume(folder, tmp_path / "photo.png", tmp_path / "mask.png")
    expected = task.classify(model.apply(variables, image[None]))[0]
    for i in range(3):
        with Image.open(tmp_path / f"mask_{i}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), 255 * expected[..., i])


def test_a_folder_is_replaced_only_when_asked_to(whole, tmp_path):
    network = trained.load(whole[0])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for overwrite in (False, True):  # It is no exported network.
        with pytest.raises(UserError, match="mine exists"):
            stablehlo.write(network, mine, overwrite=overwrite)
    folder = stablehlo.write(network, tmp_path / "new")
    with pytest.raises(UserError, match="--overwrite"):
        stablehlo.write(network, folder)
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="nothing else"):
        stablehlo.write(network, folder, overwrite=True)
    (folder / "letter.txt").unlink()
    (folder / "model.json").unlink()
    assert (stablehlo.write(network, folder, overwrite=True) / "model.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "new"]


def test_without_a_workdir_it_is_said():
    done = run("run_export.py", "--output=x")
    assert done.returncode == 1 and done.stderr == (
        "Error: --workdir is missing; see --help.\n"
    )
