"""The readers of weights against the publishers' own packages, full width.

pip install torch torchvision timm keras; python benchmarks/weight_formats.py

Each package makes a network of random weights and writes it in its own format; this
project reads the file, and both compute fc7 of the same 224 x 224 image. Packages that
are not installed are left out. Prints the largest difference, relative to the largest
number.
"""

import argparse
import importlib
import os
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.models import fcn, pretrained, vgg
from fcn_jax.training import init_from

os.environ.setdefault("KERAS_BACKEND", "torch")


def fc7(path, image):
    """This project's fc7 at the middle cell, of an RGB image."""
    weights = pretrained.load(str(path), cache="")
    model = fcn.FCN(2, depth=weights.depth, batch_norm=weights.batch_norm)
    taken = init_from.transplant(weights, model, source=str(path)).variables
    variables = {kind: tree.get("encoder", {}) for kind, tree in taken.items()}
    encoder = vgg.VGG(weights.depth, batch_norm=weights.batch_norm)
    x = (image - np.float32(weights.mean)) / np.float32(weights.std)
    features = jax.jit(
        lambda v, x: encoder.apply(
            v, x, jnp.array([[224, 224]]), train=False, update_batch_norm=False
        )
    )(variables, x[None])
    return np.asarray(features["fc7"].x[0, 3, 3])


def of_torchvision(name, folder, image):
    """A state_dict as .pth."""
    import torch
    import torchvision

    net = randomised(torchvision.models.get_model(name))
    torch.save(net.state_dict(), folder / "net.pth")
    with torch.no_grad():
        x = net.avgpool(net.features(normalised(image))).flatten(1)
        return folder / "net.pth", net.classifier[:5](x)[0].numpy()


def of_timm(name, folder, image):
    """A state_dict as safetensors."""
    import safetensors.torch
    import timm
    import torch

    net = randomised(timm.create_model(name))
    safetensors.torch.save_file(net.state_dict(), folder / "net.safetensors")
    with torch.no_grad():
        x = net.pre_logits(net.features(normalised(image)))
        return folder / "net.safetensors", x[0].flatten().numpy()


def of_keras(name, folder, image):
    """A whole model as HDF5."""
    import keras

    module = importlib.import_module(f"keras.applications.{name}")
    net = getattr(module, name.upper())(weights=None)
    rng = np.random.default_rng(0)
    for x in net.weights:
        if len(x.shape) == 1:
            x.assign(rng.normal(0, 0.1, x.shape))
    net.save(folder / "net.h5")
    top = keras.Model(net.input, net.get_layer("fc2").output)
    x = module.preprocess_input(image[None].astype(np.float32))
    return folder / "net.h5", np.asarray(top.predict(x, verbose=0))[0]


def randomised(net):
    """Random biases and statistics, which begin as zeros and ones in all packages."""
    import torch

    for name, x in net.state_dict().items():
        if name.endswith("running_var"):
            x.uniform_(0.5, 2)
        elif x.ndim == 1:
            x.add_(torch.randn_like(x), alpha=0.1)
    return net.eval()


def normalised(image):
    """As torchvision's transforms do: a batch [1,3,224,224]."""
    import torch

    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.tensor(x.transpose(2, 0, 1)[None], dtype=torch.float32)


CASES = (
    *((of_torchvision, name) for name in ("vgg11", "vgg13_bn", "vgg16", "vgg19_bn")),
    *((of_timm, name) for name in ("vgg11_bn", "vgg16")),
    *((of_keras, name) for name in ("vgg16", "vgg19")),
)


def main():
    """Prints a line a network."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    for make, name in CASES:
        package = make.__name__.removeprefix("of_")
        try:
            version = importlib.import_module(package).__version__
        except ImportError:
            print(f"{package:<12}{name:<10}not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            path, wanted = make(name, pathlib.Path(folder), image)
            found = fc7(path, image)
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        print(
            f"{package:<12}{name:<10}{version.split('+')[0]:<10}{error:.1e}", flush=True
        )


if __name__ == "__main__":
    main()
