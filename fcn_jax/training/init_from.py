"""Parameters to start from: published weights, or those of another run."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from fcn_jax.errors import UserError
from fcn_jax.models import fcn, layouts, pretrained, upsampling
from fcn_jax.training import checkpoints, optim
from fcn_jax.training import state as state_lib


def read(init_from: str, *, cache: epath.PathLike, family: str) -> layouts.Weights:
    """Reads a workdir, a checkpoint's folder, a weight file or a known name.

    Args:
        init_from: a workdir stands for its best checkpoint, or its latest if none was
            scored; ``WORKDIR/checkpoints/N`` for step N. Otherwise see
            ``pretrained.load``.
        cache: folder of downloaded weights.
        family: see ``pretrained.load``.

    Raises:
        UserError: nothing there, or nothing whole.
    """
    path = epath.Path(init_from).expanduser()
    if not path.is_dir():
        return pretrained.load(init_from, cache=cache, family=family)
    if (path / checkpoints.FOLDER).exists():
        checkpoints.require_checkpoints(path, "init_from")
        with checkpoints.open_folder(path, write=False) as checkpointer:
            scored = any(c.metrics for c in checkpointer.checkpoints)
            step = checkpoints.find_step(checkpointer, "best" if scored else "latest")
        path = path / checkpoints.FOLDER / str(step)
    variables, metadata = checkpoints.read_folder(path)
    model = metadata["config"]["model"]
    flat = {
        name: traverse_util.flatten_dict(variables.get(name, {}), sep="/")
        for name in ("params", "batch_stats")
    }
    return layouts.Weights(
        description=f"FCN-{model['stride']}s, VGG-{model['depth']}, step {path.name}",
        depth=model["depth"],
        batch_norm=model["batch_norm"],
        **flat,
        mean=tuple(metadata.get("mean", model["mean"])),
        std=tuple(metadata.get("std", model["std"])),
        geometry=model["geometry"],
        skip_scales=tuple(model.get("skip_scales", (1.0, 1.0))),
        unused=(),
    )


@dataclasses.dataclass(frozen=True)
class Transplant:
    """What a network takes from some weights.

    Attributes:
        variables: ``params`` and ``batch_stats``, nested, with what is taken only.
        anew: names of the parameters and statistics that are not.
        report: that in words, a few lines.
    """

    variables: dict[str, Any]
    anew: tuple[str, ...]
    report: str

    def into(self, state: state_lib.TrainState) -> state_lib.TrainState:
        """The fresh state with what is taken in the place of its own, where that is."""
        flat = traverse_util.flatten_dict(state.variables, keep_empty_nodes=True)
        for name, value in traverse_util.flatten_dict(self.variables).items():
            flat[name] = jax.device_put(value, flat[name].sharding)
        return state.replace(**traverse_util.unflatten_dict(flat))


def transplant(
    weights: layouts.Weights, model: fcn.FCN, *, source: str, pattern: str = ".*"
) -> Transplant:
    """Takes what fits a network by name and shape.

    Score layers of another number of classes start anew, and so does what the weights
    do not have; a convolution of the encoder that does not fit is a mistake.

    Args:
        weights: see ``read``.
        model: the network.
        source: what the user calls the weights, for messages.
        pattern: which parameters to take, as in ``optim.trainable_mask``.

    Raises:
        UserError: another encoder, other upsampling or skip scales, numbers that are
            not finite, or nothing that fits the encoder.
    """
    shapes = jax.eval_shape(
        lambda k: state_lib.init_variables(model, k), jax.random.key(0)
    )
    _require_same_encoder(weights, model, source)
    wanted = {
        kind: traverse_util.flatten_dict(shapes[kind], sep="/")
        for kind in ("params", "batch_stats")
    }
    names = [*wanted["params"], *wanted["batch_stats"]]
    chosen = optim.matching(names, pattern, "init_params")
    found = {"params": weights.params, "batch_stats": weights.batch_stats}
    taken, anew, dropped = {}, [], list(weights.unused)
    for kind, arrays in found.items():
        dropped += [name for name in arrays if name not in wanted[kind]]
        for name, shape in wanted[kind].items():
            array = arrays.get(name) if name in chosen else None
            if array is not None and array.shape != shape.shape:
                _require_score_layer(name, array, shape, weights, source)
                array = None
            if array is None:
                anew.append(name)
                continue
            if not np.isfinite(array).all():
                raise UserError(
                    f"init_from={source}: {name} holds NaN or infinite numbers; set "
                    "init_params='encoder/(conv|bn)|decoder/' to start fc6 and fc7 "
                    "anew, or take other weights."
                )
            taken[kind, *name.split("/")] = array
    _require_same_decoder(weights, model, {"/".join(t[1:]) for t in taken}, source)
    if not any(name[1] == "encoder" for name in taken):
        raise UserError(
            f"init_from={source} has nothing for the encoder that "
            f"init_params={pattern!r} matches; use init_params='.*', or init_from='' "
            "to start at random."
        )
    dropped = [n for n in dropped if not n.startswith("decoder/up") or _learned(model)]
    lines = [f"Weights of {source} ({weights.description}):"]
    lines.append(f"  loaded        {layers('/'.join(n[1:]) for n in taken)}")
    if anew:
        lines.append(f"  started anew  {layers(anew)}")
    if dropped:
        lines.append(f"  dropped       {layers(dropped)}")
    rgb = [", ".join(f"{x:.6g}" for x in values) for values in (model.mean, model.std)]
    lines.append(f"  RGB mean      {rgb[0]}; standard deviation {rgb[1]}")
    if "decoder/score_fr/kernel" not in anew and weights.geometry != model.geometry:
        lines.append(
            f"  The decoder was trained with model.geometry='{weights.geometry}', this "
            f"network has '{model.geometry}': expect other scores."
        )
    nested = {"params": {}, "batch_stats": {}} | traverse_util.unflatten_dict(taken)
    return Transplant(nested, tuple(anew), "\n".join(lines))


def _require_same_encoder(weights, model: fcn.FCN, source: str) -> None:
    if weights.depth != model.depth:
        raise UserError(
            f"init_from={source} holds a VGG-{weights.depth}, the network is a "
            f"VGG-{model.depth}; set model.depth={weights.depth}, or take other "
            "weights, or init_from='' to start at random."
        )
    if weights.batch_norm and not model.batch_norm:
        raise UserError(
            f"init_from={source} holds a network with batch normalisation; set "
            "model.batch_norm=True, or take other weights."
        )


def _require_score_layer(name: str, array, shape, weights, source: str) -> None:
    """Raises UserError unless another shape means another number of classes."""
    other = [a != b for a, b in zip(array.shape, shape.shape, strict=False)]
    same_inputs = "bias" in name or not other[-2]
    if not (name.startswith("decoder/score_") and array.ndim == len(shape.shape)) or (
        not same_inputs
    ):
        raise UserError(
            f"init_from={source}: {name} has the shape {array.shape}, the network's is "
            f"{shape.shape}; set model.width and the other fields as in the weights, "
            "or init_from='' to start at random."
        )


def _require_same_decoder(
    weights, model: fcn.FCN, taken: set[str], source: str
) -> None:
    """Raises UserError where score layers that are taken would mean something else."""
    for i, layer in enumerate(("score_pool4", "score_pool3")):
        scales = weights.skip_scales
        used = f"decoder/{layer}/kernel" in taken
        if used and scales and not math.isclose(scales[i], model.skip_scales[i]):
            raise UserError(
                f"init_from={source} has the skip scales {scales}, the network has "
                f"{model.skip_scales}; set model.skip_scales={scales}."
            )
    if _learned(model) or "decoder/score_fr/kernel" not in taken:
        return
    for name in fcn.upsampling_layers(model.stride):
        kernel = weights.params.get(f"decoder/{name}/kernel")
        if kernel is None:
            continue
        frozen = upsampling.bilinear_kernel_init(None, kernel.shape)
        if not np.allclose(kernel, frozen, atol=1e-5):
            raise UserError(
                f"init_from={source}: the kernel of {name} is not the bilinear one, it "
                "was learned; set model.upsampling='learned'."
            )


def _learned(model: fcn.FCN) -> bool:
    return model.upsampling == "learned"


def layers(names: Iterable[str]) -> str:
    """The layers that some names are of, an encoder's convolutions as a range."""
    found = list(dict.fromkeys("/".join(name.split("/")[:2]) for name in names))
    words = []
    for prefix in ("encoder/conv", "encoder/bn"):
        block = sorted(layer for layer in found if layer.startswith(prefix))
        found = [layer for layer in found if layer not in block]
        if block:
            last = block[-1].removeprefix("encoder/")
            words.append(f"{block[0]} to {last} ({len(block)} layers)")
    return ", ".join([*words, *sorted(found)])
