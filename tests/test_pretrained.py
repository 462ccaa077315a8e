"""Published weights by name or path, and in the network what they were at home."""

import hashlib

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


def load(path, preprocessing=""):
    return pretrained.load(str(path), cache="", preprocessing=preprocessing)


def test_conversions_of_caffes_weights_with_torchvisions_names(tmp_path, monkeypatch):
    layers = example_weights.vgg(16)
    path = tmp_path / "vgg16.safetensors"
    safetensors.numpy.save_file(example_weights.torchvision(layers), path)
    example_weights.check(
        load(path, "caffe"), layers, bgr=True, preprocessing=example_weights.VGG
    )
    example_weights.check(
        load(path, "torchvision"),
        layers,
        bgr=False,
        preprocessing=example_weights.IMAGENET,
    )
    assert load(path, "caffe").description == "VGG-16 of Caffe"
    assert load(path, "torchvision").description == "VGG-16 of torchvision"
    assert load(path).description == "VGG-16, taken as torchvision's"
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(pretrained, "_CAFFE_CONVERSIONS", (f"sha256:{digits}",))
    example_weights.check(
        load(path), layers, bgr=True, preprocessing=example_weights.VGG
    )
    assert load(path).description == "VGG-16 of Caffe"
    with pytest.raises(UserError, match="init_preprocessing='chainer' is not known"):
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


def test_pytorch_fcns_fcn8s_at_once_is_known_by_its_checksum(tmp_path, monkeypatch):
    """Its factors of pool4 and pool3 are in pytorch-fcn's code, not in the file."""
    _, blobs = example_weights.fcn_blobs("fcn8s")
    path = tmp_path / "fcn8s.safetensors"
    tensors = {
        f"{name}.{kind}": x
        for name, both in blobs.items()
        for kind, x in zip(("weight", "bias"), both, strict=False)
    }
    safetensors.numpy.save_file(tensors, path)
    assert load(path).skip_scales is None
    digits = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(pretrained._SKIP_SCALES, f"md5:{digits}", (0.01, 0.0001))
    assert load(path).skip_scales == (0.01, 0.0001)


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


def test_unknown_names_are_told_the_nearest(tmp_path):
    with pytest.raises(UserError, match="no such file.* did you mean vgg16-caffe, "):
        load("vgg16-cafe")
    with pytest.raises(UserError, match="no such file.*mean fcn8s_atonce-caffe, "):
        load("fcn8s-atonce")
    for path in ("runs/fcn32s", "vgg16.pth", "https://a.b/vgg16.h5"):
        with pytest.raises(UserError, match="no such file or workdir; correct the"):
            load(path)


def test_known_names_are_downloaded_once_to_the_cache(tmp_path, monkeypatch):
    layers = example_weights.vgg(16)
    source = tmp_path / "source.h5"
    example_weights.save_keras(source, layers)
    calls = []

    def fetch(urls, *, checksum, path, remedy):
        calls.append((urls, checksum))
        path.write_bytes(source.read_bytes())

    file, checksum, urls = pretrained.KNOWN["vgg16-caffe"]
    cached = tmp_path / "cache" / file
    cached.parent.mkdir()
    cached.write_text("<html>Quota exceeded</html>")  # By hand, or so it seemed.
    with pytest.raises(UserError, match="not the file that was published.*delete it"):
        pretrained.load("vgg16-caffe", cache=cached.parent)
    monkeypatch.setattr(download, "fetch", fetch)
    true = "md5:" + hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setitem(pretrained.KNOWN, "vgg16-caffe", (file, true, urls))
    weights = pretrained.load("vgg16-caffe", cache=cached.parent)
    example_weights.check(weights, layers, bgr=True, preprocessing=example_weights.VGG)
    assert calls == [(urls, true)]
    (url,) = urls
    assert file == "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    assert url.endswith(f"/keras-applications/vgg16/{file}")
    assert checksum == "md5:64373286793e3c8b2b4e3219cbf3544b"
    assert list(cached.parent.iterdir()) == [cached]


def test_a_known_name_needs_no_preprocessing(tmp_path, monkeypatch):
    """A cached file is read without network, and its colours are not guessed."""
    torch = pytest.importorskip("torch")
    layers = example_weights.vgg(16)
    state = example_weights.torchvision(layers)
    path = tmp_path / "vgg16-397923af.pth"
    torch.save({name: torch.tensor(x) for name, x in state.items()}, path)
    true = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    known = (path.name, true, ())
    monkeypatch.setitem(pretrained.KNOWN, "vgg16-torchvision", known)
    weights = pretrained.load("vgg16-torchvision", cache=tmp_path)
    example_weights.check(
        weights, layers, bgr=False, preprocessing=example_weights.IMAGENET
    )
    assert weights.description == "VGG-16 of torchvision"


def test_without_network_it_is_told_what_to_do_by_hand(tmp_path, monkeypatch):
    def dead(url, part, size):
        raise download._MirrorError("no route")

    monkeypatch.setattr(download, "_receive", dead)
    monkeypatch.setattr(weight_files, "require_reader", lambda path: None)  # PyTorch.
    for name, (file, _, urls) in pretrained.KNOWN.items():
        with pytest.raises(UserError) as caught:
            pretrained.load(name, cache=tmp_path / "cache")
        assert all(url in str(caught.value) for url in urls)
        place = tmp_path / "cache" / file
        assert f"to {place}, or set init_from to the file" in str(caught.value)
    kept = {p.suffix for p in (tmp_path / "cache").iterdir()}
    assert kept == {".lock"}
