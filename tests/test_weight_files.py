"""Files of every format: their tensors, and files that are refused."""

import os
import pickle
import re

import example_weights
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from fcn_jax.errors import UserError
from fcn_jax.models import pretrained, weight_files


def load(path):
    return pretrained.load(str(path), cache="")


def test_other_precisions(tmp_path):
    layers = example_weights.vgg(11)
    state = example_weights.torchvision(layers)
    for dtype, tolerance in ((np.float16, 1e-3), (np.float64, 0), (jnp.bfloat16, 1e-2)):
        cast = {name: np.asarray(x, dtype) for name, x in state.items()}
        path = tmp_path / "model.safetensors"
        safetensors.numpy.save_file(cast, path)
        found = load(path).params["encoder/conv2_1/kernel"]
        assert found.dtype == np.float32
        wanted = layers["conv2_1"]["weight"].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("wrapped", ["", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pth(zipped, wrapped, tmp_path):
    torch = pytest.importorskip("torch")
    layers = example_weights.vgg(16, batch_norm=True)
    state = {
        f"module.{name}": torch.tensor(x)
        for name, x in example_weights.torchvision(layers).items()
    }
    path = tmp_path / "vgg16_bn.pth"
    torch.save(
        {wrapped: state, "epoch": 3} if wrapped else state,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    example_weights.check(
        load(path), layers, bgr=False, preprocessing=example_weights.IMAGENET
    )


def test_caffes_new_layers_with_blobs_of_old(tmp_path):
    """What Caffe's own upgrade makes of a file of 2014: V2 layers, V1 blobs."""
    layers = example_weights.vgg(16)
    blobs = {}
    for name, tensors in layers.items():
        weight = tensors["weight"]
        if name.startswith("fc"):
            weight = weight.reshape(1, 1, len(weight), -1)
        blobs[name] = [weight, tensors["bias"]]
    path = tmp_path / "vgg16.caffemodel"
    path.write_bytes(example_weights.caffemodel(blobs, old_blobs=True))
    example_weights.check(
        load(path), layers, bgr=True, preprocessing=example_weights.VGG
    )


def test_pth_of_parameters_that_want_gradients(tmp_path):
    torch = pytest.importorskip("torch")
    layers = example_weights.vgg(11)
    path = tmp_path / "vgg11.pth"
    state = example_weights.torchvision(layers).items()
    torch.save({n: torch.nn.Parameter(torch.tensor(x)) for n, x in state}, path)
    example_weights.check(
        load(path), layers, bgr=False, preprocessing=example_weights.IMAGENET
    )


# What is refused.


@pytest.mark.parametrize(
    "kind", [".h5", ".safetensors", ".pth", "legacy .pth", ".caffemodel"]
)
@pytest.mark.parametrize("part", [0.0, 0.00021, 0.5, 0.99, "text"])
def test_damaged_files_are_named(kind, part, tmp_path):
    suffix = kind.split()[-1]
    path = tmp_path / f"vgg{suffix}"
    layers = example_weights.vgg(16)
    if suffix == ".h5":
        example_weights.save_keras(path, layers)
    elif suffix == ".safetensors":
        safetensors.numpy.save_file(example_weights.torchvision(layers), path)
    elif suffix == ".pth":
        torch = pytest.importorskip("torch")
        state = example_weights.torchvision(layers)
        torch.save(
            {n: torch.tensor(x) for n, x in state.items()},
            path,
            _use_new_zipfile_serialization=kind == ".pth",
        )
    else:
        blobs = {n: [t["weight"], t["bias"]] for n, t in layers.items()}
        path.write_bytes(example_weights.caffemodel(blobs))
    data = path.read_bytes()
    if part == "text":
        path.write_text("<!DOCTYPE html><title>Too many requests</title>")
    else:
        path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [path.name]


def test_a_weights_h5_of_keras_3_is_told_apart(tmp_path):
    """Keras 3 numbers the layers of a .weights.h5 by their class."""
    path = tmp_path / "vgg16.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 2))
        file["layers/conv2d/vars/1"] = np.zeros(2)
    with pytest.raises(UserError, match="is a .weights.h5 of Keras 3"):
        load(path)


def test_hdf5_with_more_than_numbers(tmp_path):
    path = tmp_path / "vgg16.h5"
    for content in ("text", h5py.SoftLink("/nowhere")):
        with h5py.File(path, "w") as file:
            file["block1_conv1/kernel:0"] = content
        with pytest.raises(UserError, match=f"{re.escape(str(path))} is damaged"):
            load(path)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False, "plain pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"features.0.weight": torch.ones(1), "x": Code(trace)}
    if zipped == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="refused, since unpickling it could run code"):
        load(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {0: "numbers"}, "text"])
def test_a_pth_of_something_else(content, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "numbers.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="holds no state_dict"):
        load(path)


def test_without_pytorch_the_remedy_is_told(tmp_path, monkeypatch):
    path = tmp_path / "vgg16.pth"
    path.write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        load(path)


def test_what_is_no_weight_file(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(UserError, match="of no known type"):
        load(tmp_path / "weights.npz")
    for missing in (tmp_path, tmp_path / "vgg16.h5"):
        with pytest.raises(UserError, match="There is no weight file"):
            weight_files.read(missing)
