"""Published weights: every format read back, in the network, and what is refused."""

import hashlib
import os
import pickle
import re

import example_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from fcn_jax import download
from fcn_jax.errors import UserError
from fcn_jax.models import pretrained, vgg, weight_files

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
VGG = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
FCN = ((122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0))


def load(path, family=""):
    return pretrained.load(str(path), cache="", family=family)


def check(weights, layers, *, bgr, top=True, preprocessing):
    params, stats = example_weights.expected(layers, bgr=bgr, top=top)
    assert weights.params.keys() == params.keys()
    assert weights.batch_stats.keys() == stats.keys()
    for found, wanted in ((weights.params, params), (weights.batch_stats, stats)):
        for name, x in wanted.items():
            np.testing.assert_array_equal(found[name], x, err_msg=name)
            assert found[name].dtype == np.float32
    np.testing.assert_allclose((weights.mean, weights.std), preprocessing)
    convs = sum(name.startswith("conv") for name in layers)
    assert {8: 11, 10: 13, 13: 16, 16: 19}[convs] == weights.depth
    assert weights.batch_norm == ("bn1_1" in layers)
    assert weights.geometry is None


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("whole_model", [True, False])
@pytest.mark.parametrize("depth", [16, 19])
def test_keras(depth, whole_model, top, tmp_path):
    layers = example_weights.vgg(depth)
    path = tmp_path / "vgg.h5"
    example_weights.save_keras(path, layers, top=top, whole_model=whole_model)
    weights = load(path)
    check(weights, layers, bgr=True, top=top, preprocessing=VGG)
    assert weights.unused == (("predictions/bias", "predictions/kernel") * top)


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
    check(weights, layers, bgr=False, top=top, preprocessing=IMAGENET)
    assert len(weights.unused) == 2 * top


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
    check(load(path), layers, bgr=False, preprocessing=IMAGENET)


def test_conversions_of_caffes_weights_with_torchvisions_names(tmp_path, monkeypatch):
    layers = example_weights.vgg(16)
    path = tmp_path / "vgg16.safetensors"
    safetensors.numpy.save_file(example_weights.torchvision(layers), path)
    check(load(path, "caffe"), layers, bgr=True, preprocessing=VGG)
    check(load(path, "torchvision"), layers, bgr=False, preprocessing=IMAGENET)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(pretrained, "_CAFFES", (f"sha256:{digits}",))
    check(load(path), layers, bgr=True, preprocessing=VGG)
    with pytest.raises(UserError, match="init_family='chainer' is not known"):
        load(path, "chainer")


def test_the_features_without_classifier(tmp_path):
    """torchvision's IMAGENET1K_FEATURES: Caffe's line, a classifier of NaN."""
    state = example_weights.torchvision(example_weights.vgg(16))
    for name, x in state.items():
        if name.startswith("classifier"):
            x[:] = np.nan
    path = tmp_path / "features.safetensors"
    safetensors.numpy.save_file(state, path)
    weights = load(path)
    assert np.isnan(weights.params["encoder/fc6/kernel"]).all()
    assert np.isfinite(weights.params["encoder/conv5_3/kernel"]).all()
    np.testing.assert_allclose(weights.mean, (122.99925, 116.99910, 103.99920))
    assert weights.std == (1.0, 1.0, 1.0)


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
    check(weights, layers, bgr=True, preprocessing=VGG)
    assert weights.unused == ("fc8.bias", "fc8.weight")


NETS = {
    "fcn32s": (("score_fr",), {"upscore": 64}),
    "fcn16s": (("score_fr", "score_pool4"), {"upscore2": 4, "upscore16": 32}),
    "fcn8s": (
        ("score_fr", "score_pool4", "score_pool3"),
        {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
    ),
}


def fcn_blobs(net):
    """A whole FCN as Caffe has it: fc6 and fc7 are convolutions."""
    rng = np.random.default_rng(1)
    layers = example_weights.vgg(16)
    blobs = {n: [t["weight"], t["bias"]] for n, t in layers.items() if n != "fc8"}
    scores, ups = NETS[net]
    inputs = {"score_fr": 128, "score_pool4": 16, "score_pool3": 8}
    for name in scores:
        weight = rng.normal(size=(21, inputs[name], 1, 1)).astype(np.float32)
        blobs[name] = [weight, rng.normal(size=21).astype(np.float32)]
    for name, k in ups.items():
        blobs[name] = [rng.normal(size=(21, 21, k, k)).astype(np.float32)]
    return layers, blobs


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
    np.testing.assert_allclose((weights.mean, weights.std), FCN)
    assert weights.geometry == "caffe" and weights.unused == ()


@pytest.mark.parametrize("net", NETS)
def test_caffemodel_of_fcn(net, tmp_path):
    layers, blobs = fcn_blobs(net)
    path = tmp_path / f"{net}-heavy-pascal.caffemodel"
    path.write_bytes(example_weights.caffemodel(blobs))
    weights = load(path)
    check_fcn(weights, layers, blobs)
    assert weights.skip_scales is None
    if net == "fcn8s":  # The one trained at once has its scales as blobs.
        for pool, scale in (("pool4", 0.01), ("pool3", 0.0001)):
            blobs[f"scale_{pool}"] = [np.array([scale], np.float32)]
        path.write_bytes(example_weights.caffemodel(blobs))
        np.testing.assert_allclose(load(path).skip_scales, (0.01, 0.0001), rtol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_pth_of_pytorch_fcn(net, tmp_path):
    torch = pytest.importorskip("torch")
    layers, blobs = fcn_blobs(net)
    state = {
        f"{name}.{kind}": torch.tensor(x)
        for name, both in blobs.items()
        for kind, x in zip(("weight", "bias"), both, strict=False)
    }
    path = tmp_path / f"{net}_from_caffe.pth"
    torch.save(state, path)
    check_fcn(load(path), layers, blobs)


def torch_fc7(layers, image, depth):
    """The classifier up to fc7's ReLU, of a normalised 224 x 224 image [3,224,224]."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x = torch.tensor(image[None])
    tensors = {n: {k: torch.tensor(v) for k, v in t.items()} for n, t in layers.items()}
    block = "1"
    for name in example_weights.CONVS[depth].split():
        if name[0] != block:
            x, block = f.max_pool2d(x, 2, 2), name[0]
        x = f.conv2d(x, **tensors[f"conv{name}"], padding=1)
        if f"bn{name}" in layers:
            x = f.batch_norm(x, **tensors[f"bn{name}"])
        x = f.relu(x)
    x = f.max_pool2d(x, 2, 2).flatten(1)
    for name in ("fc6", "fc7"):
        weight, bias = tensors[name]["weight"], tensors[name]["bias"]
        x = f.relu(f.linear(x, weight.reshape(len(weight), -1), bias))
    return x[0].numpy()


@pytest.mark.parametrize(
    ("publisher", "depth", "batch_norm"),
    [
        ("keras", 16, False),
        ("caffe", 19, False),
        ("torchvision", 11, False),
        ("torchvision", 13, True),
        ("timm", 16, True),
    ],
)
def test_the_encoder_computes_what_the_publishers_does(
    publisher, depth, batch_norm, tmp_path
):
    layers = example_weights.vgg(depth, batch_norm=batch_norm)
    image = np.random.default_rng(2).integers(0, 256, (224, 224, 3), np.uint8)
    if publisher in ("keras", "caffe"):
        # Trained on BGR less the mean of VGG's authors.
        wanted = image[:, :, ::-1] - np.array([103.939, 116.779, 123.68])
        path = tmp_path / ("vgg.h5" if publisher == "keras" else "vgg.caffemodel")
        if publisher == "keras":
            example_weights.save_keras(path, layers)
        else:
            blobs = {n: [t["weight"], t["bias"]] for n, t in layers.items()}
            path.write_bytes(example_weights.caffemodel(blobs))
    else:
        # On RGB of 0 to 1, normalised.
        wanted = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        path = tmp_path / "vgg.safetensors"
        state = example_weights.torchvision(layers, timm=publisher == "timm")
        safetensors.numpy.save_file(state, path)
    wanted = torch_fc7(layers, wanted.transpose(2, 0, 1).astype(np.float32), depth)

    weights = load(path)
    variables = {
        kind: traverse_util.unflatten_dict(
            {n.removeprefix("encoder/"): x for n, x in flat.items()}, sep="/"
        )
        for kind, flat in (
            ("params", weights.params),
            ("batch_stats", weights.batch_stats),
        )
    }
    encoder = vgg.VGG(depth, 1 / 32, batch_norm)
    x = (image - np.float32(weights.mean)) / np.float32(weights.std)
    features = jax.jit(
        lambda v, x: encoder.apply(
            v, x, jnp.array([[224, 224]]), train=False, update_batch_norm=False
        )
    )(variables, x[None])
    # Of the 7 x 7 cells the middle one sees all of pool5 and no padding.
    found = features["fc7"].x[0, 3, 3]
    assert wanted.any()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * wanted.max())


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


@pytest.mark.parametrize("suffix", [".h5", ".safetensors", ".pth", ".caffemodel"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99, "text"])
def test_damaged_files_are_named(suffix, part, tmp_path):
    path = tmp_path / f"vgg{suffix}"
    layers = example_weights.vgg(16)
    if suffix == ".h5":
        example_weights.save_keras(path, layers)
    elif suffix == ".safetensors":
        safetensors.numpy.save_file(example_weights.torchvision(layers), path)
    elif suffix == ".pth":
        torch = pytest.importorskip("torch")
        state = example_weights.torchvision(layers)
        torch.save({n: torch.tensor(x) for n, x in state.items()}, path)
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


def test_a_pth_of_something_else(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "numbers.pth"
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds no state_dict"):
        load(path)


def test_without_pytorch_the_remedy_is_told(tmp_path, monkeypatch):
    path = tmp_path / "vgg16.pth"
    path.write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        load(path)


def test_unknown_names_and_types(tmp_path):
    with pytest.raises(UserError, match="no such file.* known are vgg16-caffe, "):
        load("vgg16-cafe")
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(UserError, match="of no known type"):
        load(tmp_path / "weights.npz")
    with pytest.raises(UserError, match="There is no weight file"):
        weight_files.read(tmp_path)


def test_known_names_are_downloaded_once_to_the_cache(tmp_path, monkeypatch):
    layers = example_weights.vgg(16)
    source = tmp_path / "source.h5"
    example_weights.save_keras(source, layers)
    calls = []

    def fetch(urls, *, checksum, path, remedy):
        calls.append((urls, checksum))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())

    monkeypatch.setattr(download, "fetch", fetch)
    weights = pretrained.load("vgg16-caffe", cache=tmp_path / "cache")
    check(weights, layers, bgr=True, preprocessing=VGG)
    (((url,), checksum),) = calls
    file = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    assert url.endswith(f"/keras-applications/vgg16/{file}")
    assert checksum == "md5:64373286793e3c8b2b4e3219cbf3544b"
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [file]


def test_without_network_it_is_told_what_to_do_by_hand(tmp_path, monkeypatch):
    def dead(url, part, size):
        raise download._MirrorError("no route")

    monkeypatch.setattr(download, "_receive", dead)
    for name, (file, _, urls) in pretrained.KNOWN.items():
        with pytest.raises(UserError) as caught:
            pretrained.load(name, cache=tmp_path / "cache")
        assert all(url in str(caught.value) for url in urls)
        place = tmp_path / "cache" / file
        assert f"to {place}, or set init_from to the file" in str(caught.value)
    kept = {p.suffix for p in (tmp_path / "cache").iterdir()}
    assert kept == {".lock"}
