"""Parameters to start from: published weights, or those of another run."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from fcn_jax import agreement, sharding
from fcn_jax.errors import UserError
from fcn_jax.models import fcn, pretrained, upsampling
from fcn_jax.models.weights import Weights
from fcn_jax.training import checkpoints, optim
from fcn_jax.training import state as state_lib


def read(init_from: str, *, cache: epath.PathLike, preprocessing: str) -> Weights:
    """Reads a workdir, a checkpoint's folder, a weight file or a known name.

    Args:
        init_from: a workdir stands for its best checkpoint, or its latest if none was
            scored; ``WORKDIR/checkpoints/N`` for step N. Otherwise see
            ``pretrained.load``.
        cache: folder of downloaded weights.
        preprocessing: see ``pretrained.load``.

    Raises:
        UserError: nothing there, or nothing whole.
    """
    try:
        path = epath.Path(init_from).expanduser()
        is_folder = path.is_dir()
    except (ImportError, KeyError):  # A file system that is unknown, or not installed.
        is_folder = False
    agreement.require_same(
        {f"whether init_from={init_from} is a folder": is_folder},
        "give them a path that all of them see",
    )
    if not is_folder:
        return agreement.main_first(  # It may be downloaded.
            lambda: pretrained.load(init_from, cache=cache, preprocessing=preprocessing)
        )
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
    return Weights(
        description=f"FCN-{model['stride']}s, VGG-{model['depth']}, step {path.name}",
        depth=model["depth"],
        batch_norm=model["batch_norm"],
        **flat,
        mean=tuple(metadata["mean"]),
        std=tuple(metadata["std"]),
        geometry=model["geometry"],
        skip_scales=tuple(model.get("skip_scales", (1.0, 1.0))),
        class_names=tuple(metadata["class_names"]),
        trained_on=tuple(metadata["trained_on"]),
    )


@dataclasses.dataclass(frozen=True)
class Transplant:
    """What a network takes from some weights.

    Attributes:
        variables: ``params`` and ``batch_stats``, nested, with what is taken only.
        reinitialized: names of the parameters and statistics that are not.
        report: that in words, a few lines.
    """

    variables: dict[str, Any]
    reinitialized: tuple[str, ...]
    report: str

    def into(self, state: state_lib.TrainState) -> state_lib.TrainState:
        """The fresh state with what is taken in the place of its own, where that is."""
        flat = traverse_util.flatten_dict(state.variables, keep_empty_nodes=True)
        for name, value in traverse_util.flatten_dict(self.variables).items():
            flat[name] = sharding.put(value, flat[name].sharding)
        return state.replace(**traverse_util.unflatten_dict(flat))


def transplant(
    weights: Weights,
    model: fcn.FCN,
    *,
    source: str,
    pattern: str = ".*",
    class_names: Sequence[str] | None = None,
) -> Transplant:
    """Takes what fits a network by name and shape.

    The decoder of other classes starts anew, and so does what the weights do not have.

    Args:
        weights: see ``read``.
        model: the network.
        source: what the user calls the weights, for messages.
        pattern: which parameters to take, as in ``optim.trainable_mask``.
        class_names: of the network's classes; None if only their number counts.

    Raises:
        UserError: another encoder, other upsampling or skip scales, tensors of another
            shape, numbers that are not finite, or nothing that fits the encoder.
    """
    _require_same_encoder(weights, model, source)
    wanted = _shapes(model)
    score = weights.params.get("decoder/score_fr/bias", np.zeros(model.num_classes))
    same_classes = score.size == model.num_classes and (
        None in (class_names, weights.class_names)
        or list(class_names) == list(weights.class_names)
    )
    # The network that they should be of: the same, but for the number of its classes.
    theirs = _shapes(model.clone(num_classes=score.size, upsampling="learned"))
    chosen = optim.matching(list(wanted), pattern, "init_params")

    taken, dropped = {}, []
    for name, array in (weights.params | weights.batch_stats).items():
        if name not in theirs:
            dropped.append(name)
            continue
        if array.shape != theirs[name][1]:
            raise UserError(
                f"init_from={source}: {name} has the shape {array.shape}, the "
                f"network's is {theirs[name][1]}; set the fields of model as in the "
                "weights, take other ones, or init_from='' to start at random."
            )
        if name in wanted and name not in chosen:
            continue
        if not np.isfinite(array).all():
            raise UserError(
                f"init_from={source}: {name} holds NaN or infinite numbers; set "
                "init_params='encoder/(conv|bn)|decoder/' to start fc6 and fc7 anew, "
                "or take other weights."
            )
        if name in wanted and (same_classes or name.startswith("encoder/")):
            taken[name] = array
    if not any(name.startswith("encoder/") for name in taken):
        raise UserError(
            f"init_from={source} has nothing for the encoder that "
            f"init_params={pattern!r} matches; use init_params='.*', or init_from='' "
            "to start at random."
        )
    if "decoder/score_fr/kernel" in taken:
        _require_same_decoder(weights, model, taken, source)
    nested = {"params": {}, "batch_stats": {}}
    nested |= traverse_util.unflatten_dict(
        {(wanted[name][0], *name.split("/")): array for name, array in taken.items()}
    )
    reinitialized = tuple(name for name in wanted if name not in taken)
    report = _report(weights, model, source, taken, reinitialized, dropped)
    return Transplant(nested, reinitialized, report)


def _shapes(model: fcn.FCN) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Collection and shape of each parameter and statistic of a network, by name."""
    shapes = jax.eval_shape(
        lambda key: state_lib.init_variables(model, key), jax.random.key(0)
    )
    return {
        name: (kind, leaf.shape)
        for kind, tree in shapes.items()
        for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()
    }


def _require_same_encoder(weights: Weights, model: fcn.FCN, source: str) -> None:
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


def _require_same_decoder(
    weights: Weights, model: fcn.FCN, taken: Iterable[str], source: str
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
    for layer in fcn.upsampling_layers(model.stride):
        kernel = weights.params.get(f"decoder/{layer}/kernel")
        if kernel is None or f"decoder/{layer}/kernel" in taken:
            continue
        frozen = upsampling.bilinear_kernel_init(None, kernel.shape)
        if not np.allclose(kernel, frozen, atol=1e-5):
            raise UserError(
                f"init_from={source}: the kernel of {layer} is not the bilinear one, "
                "it was learned; set model.upsampling='learned'."
            )


def _report(weights, model, source, taken, reinitialized, dropped) -> str:
    lines = [f"Weights of {source} ({weights.description}):"]
    lines.append(f"  loaded        {layers(taken)}")
    if reinitialized:
        lines.append(f"  started anew  {layers(reinitialized)}")
    if dropped or weights.unused:
        lines.append(f"  dropped       {layers([*dropped, *weights.unused])}")
    lines.append(f"  preprocessing {_preprocessing(model.mean, model.std)}")
    # Means of the same origin differ by less than a grey level.
    apart = np.abs(np.subtract(model.mean, weights.mean)).max() > 2
    if apart or not np.allclose(model.std, weights.std, rtol=0.05):
        lines.append(
            f"  The weights want {_preprocessing(weights.mean, weights.std)}, but "
            "model.mean and model.std say otherwise."
        )
    if "decoder/score_fr/kernel" in taken and weights.geometry != model.geometry:
        lines.append(
            f"  The decoder was trained with model.geometry='{weights.geometry}', this "
            f"network has '{model.geometry}': expect other scores."
        )
    return "\n".join(lines)


def _preprocessing(mean: Sequence[float], std: Sequence[float]) -> str:
    mean, std = (", ".join(f"{x:.6g}" for x in values) for values in (mean, std))
    return f"RGB less {mean}, divided by {std}"


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
