"""Published weights: by a known name, which is downloaded, or from a file."""

import dataclasses
import difflib
import os
import pathlib

from fcn_jax import download
from fcn_jax.errors import UserError
from fcn_jax.models import layouts, weight_files, weights

PREPROCESSINGS = ("torchvision", "caffe")

# Addresses and checksums are those in keras.applications 3.15.1, torchvision 0.29.1 and
# pytorch-fcn 4b98850. torchvision publishes the first eight digits only.
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_TORCH = "https://download.pytorch.org/models"
_DRIVE = (
    "https://drive.usercontent.google.com/download?export=download&confirm=t&id=",
    "https://drive.google.com/uc?export=download&id=",
)


def _keras(depth: int, checksum: str) -> tuple[str, str, tuple[str, ...]]:
    file = f"vgg{depth}_weights_tf_dim_ordering_tf_kernels.h5"
    return file, f"md5:{checksum}", (f"{_KERAS}/vgg{depth}/{file}",)


def _torchvision(file: str) -> tuple[str, str, tuple[str, ...]]:
    digits = pathlib.Path(file).stem.split("-")[-1]
    return file, f"sha256:{digits}", (f"{_TORCH}/{file}",)


def _pytorch_fcn(net: str, checksum: str, key: str) -> tuple[str, str, tuple[str, ...]]:
    return f"{net}_from_caffe.pth", f"md5:{checksum}", tuple(d + key for d in _DRIVE)


# File, checksum and addresses of each known name.
KNOWN = {
    "vgg16-caffe": _keras(16, "64373286793e3c8b2b4e3219cbf3544b"),
    "vgg19-caffe": _keras(19, "cbe5617147190e668d6c5d5026f83318"),
    "vgg11-torchvision": _torchvision("vgg11-8a719046.pth"),
    "vgg13-torchvision": _torchvision("vgg13-19584684.pth"),
    "vgg16-torchvision": _torchvision("vgg16-397923af.pth"),
    "vgg19-torchvision": _torchvision("vgg19-dcbb9e9d.pth"),
    "vgg11_bn-torchvision": _torchvision("vgg11_bn-6002323d.pth"),
    "vgg13_bn-torchvision": _torchvision("vgg13_bn-abd245e5.pth"),
    "vgg16_bn-torchvision": _torchvision("vgg16_bn-6c64b313.pth"),
    "vgg19_bn-torchvision": _torchvision("vgg19_bn-c79401a0.pth"),
    "vgg16_features-torchvision": _torchvision("vgg16_features-amdegroot-88682ab5.pth"),
    "fcn32s-caffe": _pytorch_fcn(
        "fcn32s",
        "d3eb467a80e7da0468a20dfcbc13e6c8",
        "11k2Q0bvRQgQbT6-jYWeh6nmAsWlSCY3f",
    ),
    "fcn16s-caffe": _pytorch_fcn(
        "fcn16s",
        "a2d4035f669f09483b39c9a14a0d6670",
        "1bctu58B6YH9bu6lBBSBB2rUeGlGhYLoP",
    ),
    "fcn8s-caffe": _pytorch_fcn(
        "fcn8s",
        "de93e540ec79512f8770033849c8ae89",
        "1ieXWyoG68xqoHJPWdyrDyaIaaWlfmUxI",
    ),
    "fcn8s_atonce-caffe": _pytorch_fcn(
        "fcn8s-atonce",
        "bfed4437e941fef58932891217fe6464",
        "0B9P1L--7Wd2vblE1VUIxV1o2d2M",
    ),
}
# Conversions of Caffe's VGG-16 that bear torchvision's names: those of jcjohnson's
# pytorch-vgg and of pytorch-fcn.
_CAFFE_CONVERSIONS = ("sha256:00b39a1b", "md5:aa75b158f4181e7f6230029eb96c1b13")
# What the networks of the release, and those that follow its recipe, learned from.
_REFERENCE_TRAINED_ON = ("voc/sbd_train",)
# pytorch-fcn has the factors of Caffe's FCN-8s at once in its code, not in the file.
_SKIP_SCALES = {
    KNOWN["fcn16s-caffe"][1]: (1.0, 1.0),
    KNOWN["fcn8s-caffe"][1]: (1.0, 1.0),
    KNOWN["fcn8s_atonce-caffe"][1]: (0.01, 0.0001),
}


def load(
    name: str, *, cache: str | os.PathLike, preprocessing: str = ""
) -> weights.Weights:
    """Loads published weights.

    Args:
        name: one of KNOWN, downloaded to the cache if it is not there, or the path of
            a file, see ``weight_files.read``.
        cache: folder of downloads.
        preprocessing: what a file with torchvision's names was trained with:
            ``torchvision`` (RGB of ImageNet's mean and standard deviation), ``caffe``
            (BGR less a mean, in conversions of the VGG authors' weights), or "" to
            recognise the two known conversions and take any other as torchvision's. A
            known name needs none.

    Raises:
        UserError: no such name or file, no network, or a file that is not whole.
    """
    if preprocessing not in ("", *PREPROCESSINGS):
        raise UserError(
            f"init_preprocessing={preprocessing!r} is not known; use '' or one of "
            f"{PREPROCESSINGS}."
        )
    if name in KNOWN:
        path = _fetch(name, pathlib.Path(cache).expanduser())
        preprocessing = "torchvision"  # Where the names in the file leave that open.
    else:
        path = pathlib.Path(name).expanduser()
        _require_exists(name, path)
    tensors = weight_files.read(path)
    if not preprocessing and any(download.matches(path, c) for c in _CAFFE_CONVERSIONS):
        preprocessing = "caffe"
    found = layouts.convert(tensors, path, preprocessing)
    if found.geometry is None:
        return found
    scales = found.skip_scales
    if scales is None:
        # Caffe's own files have the factors where there are any.
        scales = (1.0, 1.0) if path.suffix == ".caffemodel" else None
        for checksum, known in _SKIP_SCALES.items():
            scales = known if download.matches(path, checksum) else scales
    return dataclasses.replace(
        found, skip_scales=scales, trained_on=_REFERENCE_TRAINED_ON
    )


def _fetch(name: str, cache: pathlib.Path) -> pathlib.Path:
    """The file of a known name, whole."""
    file, checksum, urls = KNOWN[name]
    path = cache / file
    weight_files.require_reader(path)  # Before half a gigabyte is downloaded.
    download.fetch(
        urls,
        checksum=checksum,
        path=path,
        remedy=f"to {path}, or set init_from to the file, or to '' for random ones",
    )
    return path


def _require_exists(name: str, path: pathlib.Path) -> None:
    if path.exists():
        return
    if len(path.parts) > 1 or path.suffix:
        raise UserError(
            f"init_from={name}: there is no such file or workdir; correct the path, or "
            "run the training that makes it first."
        )
    near = difflib.get_close_matches(name, KNOWN, n=3, cutoff=0.0)
    raise UserError(
        f"init_from={name}: there is no such file or workdir, and no weights of that "
        f"name; did you mean {', '.join(near[:-1])} or {near[-1]}?"
    )
