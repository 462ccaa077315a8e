"""How publishers name and lay out VGG and FCN weights, and the same under our names."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from fcn_jax.errors import UserError
from fcn_jax.models import fcn, vgg
from fcn_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD, Weights

# RGB, for pixels of 0-255.
VGG_MEAN = (123.68, 116.779, 103.939)  # Simonyan & Zisserman's.
FCN_MEAN = (122.67892, 116.66877, 104.00699)  # Of the reference's data layers.
SSD_MEAN = tuple(255 * x for x in (0.48235, 0.45882, 0.40784))
ONE = (1.0, 1.0, 1.0)
_SCALES = ("scale_pool4.weight", "scale_pool3.weight")  # Caffe's FCN-8s at once.


@dataclasses.dataclass(frozen=True)
class _Layout:
    """One network as one publisher names it.

    Attributes:
        publisher: its name.
        network: what it is of, such as "VGG-16".
        depth: of the VGG.
        batch_norm: whether it has batch normalisation.
        required: our name of each tensor, by theirs.
        optional: the same of tensors of which all may be missing, but not some: fc6 and
            fc7 of a classifier, the upsampling of an FCN.
        unused: names of tensors that an FCN has no place for; may be missing.
        stride: of the FCN; None for a classifier.
    """

    publisher: str
    network: str
    depth: int
    batch_norm: bool
    required: dict[str, str]
    optional: dict[str, str]
    unused: frozenset[str]
    stride: int | None = None

    def missing(self, names: set[str]) -> list[str]:
        """What a file with these names lacks."""
        wanted = self.required | (self.optional if names & {*self.optional} else {})
        return [name for name in wanted if name not in names]

    def extra(self, names: set[str]) -> list[str]:
        """What a file with these names has too much."""
        known = self.required.keys() | self.optional.keys() | self.unused
        return sorted(names - known)


def convert(
    tensors: Mapping[str, np.ndarray], path: pathlib.Path, preprocessing: str
) -> Weights:
    """Recognises the publisher by the names and converts.

    Args:
        tensors: as ``weight_files.read`` gives them.
        path: of their file, for messages.
        preprocessing: ``caffe`` or ``torchvision``: what torchvision's names stand for,
            see ``pretrained.load``; no other names leave that open. "" if that is not
            known: they are taken as torchvision's.

    Raises:
        UserError: no network that is known, or one with a tensor missing, too much or
            of another shape.
    """
    names = {n for n in tensors if not n.endswith(".num_batches_tracked")}
    layout = min(
        _layouts(), key=lambda one: len(one.missing(names)) + len(one.extra(names))
    )
    if missing := layout.missing(names):
        if not names & layout.required.keys():
            raise UserError(
                f"{path} holds no VGG or FCN of a known publisher: its first tensor is "
                f"{min(names, default='none')}; give weights of Keras, torchvision, "
                "timm, pytorch-fcn or Caffe."
            )
        raise UserError(
            f"{path} is no whole {layout.network} of {layout.publisher}: "
            f"{len(missing)} tensor(s) are missing, the first is {missing[0]}; copy or "
            "download it again."
        )
    if extra := layout.extra(names):
        raise UserError(
            f"{path} is no {layout.network} of {layout.publisher}: {len(extra)} "
            f"tensor(s) are too many, the first is {extra[0]}; give weights of a "
            "network that is known."
        )
    params, batch_stats = {}, {}
    for theirs, ours in (layout.required | layout.optional).items():
        if theirs in tensors:
            kept = batch_stats if ours.endswith(("/mean", "/var")) else params
            kept[ours] = _ours(tensors[theirs], theirs, ours, path)
    description, publisher = f"{layout.network} of {layout.publisher}", layout.publisher
    if publisher == "torchvision" and preprocessing == "caffe":
        description, publisher = f"{layout.network} of Caffe", "Caffe"
    elif publisher == "torchvision" and not preprocessing:
        description = f"{layout.network}, taken as torchvision's"
    scales = [_scale(tensors[name], name, path) for name in _SCALES if name in tensors]
    if publisher not in ("torchvision", "timm"):
        kernel = params["encoder/conv1_1/kernel"]
        params["encoder/conv1_1/kernel"] = kernel[:, :, ::-1]  # BGR to RGB.
        mean, std = (FCN_MEAN if layout.stride else VGG_MEAN), ONE
    elif np.isnan(params.get("encoder/fc6/kernel", np.zeros(1))).all():
        mean, std = SSD_MEAN, ONE  # torchvision's IMAGENET1K_FEATURES, of Caffe's line.
    else:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    return Weights(
        description=description,
        depth=layout.depth,
        batch_norm=layout.batch_norm,
        params=params,
        batch_stats=batch_stats,
        mean=mean,
        std=std,
        geometry="caffe" if layout.stride else None,
        skip_scales=tuple(scales) if len(scales) == len(_SCALES) else None,
        unused=tuple(sorted({_layer(n) for n in names & layout.unused - {*_SCALES}})),
    )


def _scale(x: np.ndarray, name: str, path: pathlib.Path) -> float:
    """The factor of a ``Scale`` layer, which has it once for each channel."""
    if not (x.size and (x == x.flat[0]).all()):
        raise UserError(
            f"{path}: {name} holds {np.unique(x).size} factors, wanted is one; "
            "give a network whose Scale layers were not trained."
        )
    return float(f"{x.flat[0]:.6g}")  # 0.01, not the float32 next to it.


def _layer(name: str) -> str:
    """A tensor's name without its last part: ``classifier.6``, ``predictions``."""
    return name.rpartition("/" if "/" in name else ".")[0]


def _ours(x: np.ndarray, theirs: str, ours: str, path: pathlib.Path) -> np.ndarray:
    """A tensor in our layout: kernels as [k,k,C_in,C_out]."""
    _, layer, kind = ours.split("/")
    keras = "/" in theirs
    if kind != "kernel":
        wanted = "[C]"
        if x.ndim == 1:
            return x
    elif x.ndim == 2 and layer in ("fc6", "fc7"):
        # An inner product of all cells: 7 x 7 of them in fc6, one in fc7.
        k = 7 if layer == "fc6" else 1
        inputs, outputs = x.shape if keras else x.shape[::-1]
        wanted = f"{k * k} C inputs with whole C, such as {512 * k * k}"
        if inputs % (k * k) == 0:
            if keras:  # Flattened as height, width, channel.
                return x.reshape(k, k, -1, outputs)
            # As channel, height, width.
            return x.reshape(outputs, -1, k, k).transpose(2, 3, 1, 0)
    else:
        wanted = "four axes"
        if x.ndim == 4:
            theirs_to_ours = (2, 3, 0, 1) if layer.startswith("up") else (2, 3, 1, 0)
            return x if keras else x.transpose(theirs_to_ours)
    raise UserError(
        f"{path}: {theirs} has the shape {x.shape}, wanted is {wanted}; give weights "
        "of a VGG."
    )


def _layouts() -> Iterator[_Layout]:
    """All networks of all publishers."""
    for depth in vgg.BLOCKS:
        for batch_norm in (False, True):
            yield from _torch_layouts(depth, batch_norm)
    for depth in (16, 19):
        yield _keras_layout(depth)
        yield _caffe_layout(depth, None)
    for stride in fcn.STRIDES:
        yield _caffe_layout(16, stride)


def _convs(depth: int) -> list[str]:
    """The names of a VGG's convolutions."""
    return [
        f"conv{block}_{i}"
        for block, count in enumerate(vgg.BLOCKS[depth], start=1)
        for i in range(1, count + 1)
    ]


def _both(layers: Mapping[str, str], kernel: str, bias: str) -> dict[str, str]:
    """Names of kernels and biases, from names of layers."""
    return {
        f"{theirs}{suffix}": f"{ours}/{kind}"
        for theirs, ours in layers.items()
        for suffix, kind in ((kernel, "kernel"), (bias, "bias"))
    }


def _keras_layout(depth: int) -> _Layout:
    convs = {
        name.replace("conv", "block").replace("_", "_conv"): f"encoder/{name}"
        for name in _convs(depth)
    }
    return _Layout(
        "Keras",
        f"VGG-{depth}",
        depth,
        False,
        _both(convs, "/kernel", "/bias"),
        _both({"fc1": "encoder/fc6", "fc2": "encoder/fc7"}, "/kernel", "/bias"),
        frozenset({"predictions/kernel", "predictions/bias"}),
    )


def _caffe_layout(depth: int, stride: int | None) -> _Layout:
    """Names of Caffe's layers, which pytorch-fcn's files have too."""
    required = _both({n: f"encoder/{n}" for n in _convs(depth)}, ".weight", ".bias")
    head = _both({n: f"encoder/{n}" for n in ("fc6", "fc7")}, ".weight", ".bias")
    if stride is None:
        unused = frozenset({"fc8.weight", "fc8.bias"})
        return _Layout("Caffe", f"VGG-{depth}", depth, False, required, head, unused)
    scores = ("score_fr", "score_pool4", "score_pool3")
    scores = scores[: 1 + fcn.STRIDES.index(stride)]
    required |= head | _both({n: f"decoder/{n}" for n in scores}, ".weight", ".bias")
    upsampling = fcn.upsampling_layers(stride)
    return _Layout(
        "Caffe",
        f"FCN-{stride}s",
        depth,
        False,
        required,
        {f"{layer}.weight": f"decoder/{layer}/kernel" for layer in upsampling},
        frozenset(_SCALES),
        stride,
    )


def _torch_layouts(depth: int, batch_norm: bool) -> Iterator[_Layout]:
    """Those of torchvision and of timm, whose convolutions have the same names."""
    required, index = {}, 0
    for block, count in enumerate(vgg.BLOCKS[depth], start=1):
        for i in range(1, count + 1):
            ours = f"encoder/conv{block}_{i}"
            required |= _both({f"features.{index}": ours}, ".weight", ".bias")
            if batch_norm:
                ours, theirs = ours.replace("conv", "bn"), f"features.{index + 1}"
                required |= {
                    f"{theirs}.weight": f"{ours}/scale",
                    f"{theirs}.bias": f"{ours}/bias",
                    f"{theirs}.running_mean": f"{ours}/mean",
                    f"{theirs}.running_var": f"{ours}/var",
                }
            index += 3 if batch_norm else 2  # ReLU has a number, too, ...
        index += 1  # ... and so has the pooling.
    for publisher, fc6, fc7, last in (
        ("torchvision", "classifier.0", "classifier.3", "classifier.6"),
        ("timm", "pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    ):
        yield _Layout(
            publisher,
            f"VGG-{depth}{' with batch normalisation' if batch_norm else ''}",
            depth,
            batch_norm,
            required,
            _both({fc6: "encoder/fc6", fc7: "encoder/fc7"}, ".weight", ".bias"),
            frozenset({f"{last}.weight", f"{last}.bias"}),
        )
