"""Every publisher's names and layouts become ours; what does not is named."""

import re

import example_weights
import numpy as np
import pytest
import safetensors.numpy

from fcn_jax.errors import UserError
from fcn_jax.models import pretrained


def load(path):
    return pretrained.load(str(path), cache="")


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("whole_model", [True, False])
@pytest.mark.parametrize("depth", [16, 19])
def test_keras(depth, whole_model, top, tmp_path):
    layers = example_weights.vgg(depth)
    path = tmp_path / "vgg.h5"
    example_weights.save_keras(path, layers, top=top, whole_model=whole_model)
    weights = load(path)
    example_weights.check(
        weights, layers, bgr=True, top=top, preprocessing=example_weights.VGG
    )
    assert weights.unused == ("predictions",) * top


@pytest.mark.parametrize("timm", [True, False])
@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_safetensors_of_torchvision_and_timm(depth, batch_norm, top, timm, tmp_path):
    layers = example_weights.vgg(depth, batch_norm=batch_norm)
    state = example_weights.torchvision(layers, timm=timm, top=top)
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(state, path)
    weights = load(path)
    example_weights.check(
        weights, layers, bgr=False, top=top, preprocessing=example_weights.IMAGENET
    )
    assert weights.unused == ("head.fc" if timm else "classifier.6",) * top


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("depth", [16, 19])
def test_caffemodel_of_vgg(depth, old, tmp_path):
    layers = example_weights.vgg(depth)
    blobs = {}
    for name, tensors in layers.items():
        weight = tensors["weight"]
        if name.startswith("fc"):  # Inner products.
            weight = weight.reshape(len(weight), -1)
        blobs[name] = [weight, tensors["bias"]]
    path = tmp_path / "VGG.caffemodel"
    path.write_bytes(example_weights.caffemodel(blobs, old=old))
    weights = load(path)
    example_weights.check(weights, layers, bgr=True, preprocessing=example_weights.VGG)
    assert weights.unused == ("fc8",)


def check_fcn(weights, layers, blobs):
    params, _ = example_weights.expected(layers, bgr=True)
    for name, x in blobs.items():
        if name.startswith("score"):
            params[f"decoder/{name}/kernel"] = x[0].transpose(2, 3, 1, 0)
            params[f"decoder/{name}/bias"] = x[1]
        elif name.startswith("up"):  # [in,out,k,k] -> [k,k,in,out].
            params[f"decoder/{name}/kernel"] = x[0].transpose(2, 3, 0, 1)
    assert weights.params.keys() == params.keys()
    for name, x in params.items():
        np.testing.assert_array_equal(weights.params[name], x, err_msg=name)
    np.testing.assert_allclose((weights.mean, weights.std), example_weights.FCN)
    assert weights.geometry == "caffe" and weights.unused == ()


@pytest.mark.parametrize("net", example_weights.NETS)
def test_caffemodel_of_fcn(net, tmp_path):
    layers, blobs = example_weights.fcn_blobs(net)
    path = tmp_path / f"{net}-heavy-pascal.caffemodel"
    path.write_bytes(example_weights.caffemodel(blobs))
    weights = load(path)
    check_fcn(weights, layers, blobs)
    assert weights.skip_scales == (1.0, 1.0)


def test_caffemodel_of_fcn8s_at_once(tmp_path):
    """Its Scale layers have a factor for each of 512 and 256 channels, all the same."""
    layers, blobs = example_weights.fcn_blobs("fcn8s")
    for pool, channels, factor in (("pool4", 16, 0.01), ("pool3", 8, 0.0001)):
        blobs[f"scale_{pool}"] = [np.full(channels, factor, np.float32)]
    path = tmp_path / "fcn8s-atonce-pascal.caffemodel"
    path.write_bytes(example_weights.caffemodel(blobs))
    weights = load(path)
    assert weights.skip_scales == (0.01, 0.0001)
    del blobs["scale_pool4"], blobs["scale_pool3"]
    check_fcn(weights, layers, blobs)
    blobs["scale_pool4"] = [np.linspace(0, 1, 16, dtype=np.float32)]
    path.write_bytes(example_weights.caffemodel(blobs))
    with pytest.raises(UserError, match="scale_pool4.weight holds 16 factors"):
        load(path)


def test_an_fcn_may_come_without_its_frozen_upsampling(tmp_path):
    layers, blobs = example_weights.fcn_blobs("fcn8s")
    path = tmp_path / "fcn8s.caffemodel"
    for name in ("upscore2", "upscore_pool4", "upscore8"):
        whole = example_weights.caffemodel(blobs)
        del blobs[name]
    path.write_bytes(example_weights.caffemodel(blobs))
    check_fcn(load(path), layers, blobs)
    path.write_bytes(whole)  # One of three is left.
    with pytest.raises(UserError, match="2 tensor.* missing, the first is upscore2.w"):
        load(path)


@pytest.mark.parametrize("net", example_weights.NETS)
def test_pth_of_pytorch_fcn(net, tmp_path):
    torch = pytest.importorskip("torch")
    layers, blobs = example_weights.fcn_blobs(net)
    state = {
        f"{name}.{kind}": torch.tensor(x)
        for name, both in blobs.items()
        for kind, x in zip(("weight", "bias"), both, strict=False)
    }
    path = tmp_path / f"{net}_from_caffe.pth"
    torch.save(state, path)
    check_fcn(load(path), layers, blobs)


# What is refused.


def vgg_state(**changes):
    state = example_weights.torchvision(example_weights.vgg(16))
    for name, x in changes.items():
        if x is None:
            del state[name]
        else:
            state[name] = x
    return state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features.12.weight": None},
            "1 tensor.* missing, the first is features.12.w",
        ),
        ({"classifier.3.bias": None}, "missing, the first is classifier.3.bias"),
        (
            {"features.99.weight": np.ones((1, 1, 3, 3))},
            "too many.* features.99.weight",
        ),
        ({"features.5.weight": np.ones((4, 9))}, "features.5.weight has the shape"),
        ({"features.5.bias": np.ones((4, 9))}, "features.5.bias has the shape"),
        (
            {"classifier.0.weight": np.ones((4, 50))},
            "classifier.0.weight has the shape",
        ),
    ],
)
def test_a_wrong_tensor_is_named(changes, message, tmp_path):
    path = tmp_path / "vgg16.safetensors"
    safetensors.numpy.save_file(vgg_state(**changes), path)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{message}"):
        load(path)


def test_another_network_is_no_vgg(tmp_path):
    path = tmp_path / "resnet.safetensors"
    safetensors.numpy.save_file({"layer1.0.conv1.weight": np.ones((2, 2, 3, 3))}, path)
    with pytest.raises(UserError, match="no VGG or FCN .* layer1.0.conv1.weight"):
        load(path)


@pytest.mark.parametrize("missing", ["classifier.0", "classifier.3"])
def test_fc6_and_fc7_come_together(missing, tmp_path):
    changes = {f"{missing}.weight": None, f"{missing}.bias": None}
    path = tmp_path / "vgg16.safetensors"
    safetensors.numpy.save_file(vgg_state(**changes), path)
    with pytest.raises(UserError, match=f"2 tensor.* the first is {missing}.weight"):
        load(path)


def test_batch_normalisation_of_all_layers_or_none(tmp_path):
    state = example_weights.torchvision(example_weights.vgg(16, batch_norm=True))
    del state["features.8.running_mean"]
    path = tmp_path / "vgg16_bn.safetensors"
    safetensors.numpy.save_file(state, path)
    with pytest.raises(UserError, match="the first is features.8.running_mean"):
        load(path)
