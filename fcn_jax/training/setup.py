"""From a config to the parts of a run: checked numbers, network, optimizer, images."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import optax

from fcn_jax import sharding
from fcn_jax.data import transforms
from fcn_jax.errors import UserError
from fcn_jax.models import fcn
from fcn_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD, Weights
from fcn_jax.training import init_from, losses, optim


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for settings that make no run; reads and writes nothing."""
    steps = "num_steps", "eval_every", "checkpoint_every", "log_every"
    for name in (*steps, "accumulation_steps"):
        if config[name] < 1:
            raise UserError(f"{name}={config[name]} must be at least 1.")
    sharding.check_batch_size(
        "batch_size", config.batch_size, config.accumulation_steps
    )
    sharding.check_batch_size("eval_batch_size", config.eval_batch_size)
    if config.loss.reduction not in losses.REDUCTIONS:
        raise UserError(
            f"loss.reduction={config.loss.reduction!r} is not known; use one of "
            f"{losses.REDUCTIONS}."
        )
    if not 0 <= config.loss.label_smoothing < 1:
        raise UserError(
            f"loss.label_smoothing={config.loss.label_smoothing} must be at least 0 "
            "and less than 1."
        )
    make_augment(config, (1, 1))
    make_model(config, 2)


def make_model(
    config: ml_collections.ConfigDict,
    num_classes: int,
    *,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
) -> fcn.FCN:
    """The config's network; the mean and the std given are for fields left open."""
    fields = dict(config.model)
    fields["mean"] = fields["mean"] or mean
    fields["std"] = fields["std"] or std
    return fcn.create(num_classes, **fields)


def read_weights(config: ml_collections.ConfigDict) -> Weights | None:
    """The weights that the config starts from, None for random ones.

    What can be wrong with them is found here, before any data are read.

    Raises:
        UserError: see ``init_from.read`` and ``init_from.transplant``.
    """
    if not config.init_from:
        return None
    weights = init_from.read(
        config.init_from,
        cache=config.weights_cache,
        preprocessing=config.init_preprocessing,
    )
    init_from.transplant(
        weights,
        make_model(config, 2),  # The number of classes is not known yet.
        source=config.init_from,
        pattern=config.init_params,
    )
    return weights


class Inherited(NamedTuple):
    """What a run has from the one that it goes on from, or from its weights."""

    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    trained_on: Sequence[str] = ()


def inherit(saved: dict[str, Any] | None, weights: Weights | None) -> Inherited:
    """Takes it from a checkpoint's metadata or else from weights, where there are."""
    if saved is not None:
        return Inherited(saved["mean"], saved["std"], saved["trained_on"])
    if weights is not None:
        return Inherited(weights.mean, weights.std, weights.trained_on)
    return Inherited()


def make_augment(
    config: ml_collections.ConfigDict, max_size: tuple[int, int]
) -> transforms.Augment:
    """How the config changes training images.

    Args:
        config: where ``augment.crop`` is empty, images are not cropped.
        max_size: the largest height and width of the training images.

    Raises:
        UserError: sizes and scales that give no image.
    """
    augment, image_scale = config.augment, config.data.image_scale
    largest = max(augment.scale, default=1) * image_scale
    return transforms.Augment(
        crop=tuple(augment.crop) or transforms.scaled_size(max_size, largest),
        scale=tuple(augment.scale),
        image_scale=image_scale,
        flip=augment.flip,
        photometric=augment.photometric,
    )


def make_optimizer(
    config: ml_collections.ConfigDict, trainable: Any
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The config's learning-rate schedule and optimizer of the trainable parameters."""
    o = config.optimizer
    schedule = optim.make_schedule(
        o.schedule,
        peak=o.learning_rate,
        num_steps=config.num_steps,
        warmup_steps=o.warmup_steps,
        power=o.power,
    )
    tx = optim.make_optimizer(
        o.name,
        learning_rate=schedule,
        momentum=o.momentum,
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
        trainable=trainable,
        table=o.multipliers,
    )
    return schedule, tx


def count(params: Any, chosen: Any = None) -> int:
    """How many numbers the (chosen) parameters are."""
    chosen = jax.tree.map(lambda _: True, params) if chosen is None else chosen
    return sum(
        math.prod(p.shape) * c
        for p, c in zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    )
