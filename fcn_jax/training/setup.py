"""From a config to the parts of a run: checked numbers, network, loss, optimizer."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from fcn_jax import sharding
from fcn_jax.data import datasets
from fcn_jax.errors import UserError
from fcn_jax.evaluation import tasks
from fcn_jax.models import fcn
from fcn_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD, Weights
from fcn_jax.training import init_from, inputs, losses, optim, resume
from fcn_jax.training import state as state_lib
from fcn_jax.training import step as step_lib

_NOT_NEGATIVE = (
    "seed",
    "num_overlays",
    "data.num_workers",
    "data.num_threads",
    "optimizer.learning_rate",
    "optimizer.momentum",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "optimizer.power",
    "optimizer.warmup_steps",
)
_HIGHEST = {"seed": 2**32 - 1, "model.width": 16, "data.image_scale": 16}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for settings that make no run; reads and writes nothing."""
    _check_numbers(config)
    steps = "num_steps", "eval_every", "checkpoint_every", "log_every"
    for name in (*steps, "accumulation_steps"):
        if config[name] < 1:
            raise UserError(f"{name}={config[name]} must be at least 1.")
    if config.eval_batch_size < 1:
        raise UserError(f"eval_batch_size={config.eval_batch_size} must be at least 1.")
    if config.loss.reduction not in losses.REDUCTIONS:
        raise UserError(
            f"loss.reduction={config.loss.reduction!r} is not known; use one of "
            f"{losses.REDUCTIONS}."
        )
    terms = make_loss(config).terms
    if config.loss.reduction == "sum" and terms != ("cross_entropy",):
        raise UserError(
            f"loss.reduction='sum' is of cross_entropy alone, but the loss has "
            f"{', '.join(terms)}; use loss.reduction=mean."
        )
    tasks.make(config.task, max(2, len(config.thresholds)), config.thresholds)
    inputs.make_augment(config, (1, 1))
    make_model(config, 2)


def _check_numbers(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for numbers that are none, or out of their range."""
    for name, value in resume.flatten(config.to_dict()).items():
        values = value if isinstance(value, tuple | list) else [value]
        if name == "optimizer.multipliers":  # A table with patterns.
            continue
        for number in values:
            numeric = isinstance(number, int | float)
            if isinstance(value, tuple | list) and not numeric:
                raise UserError(f"{name}={value!r} must have numbers alone.")
            if numeric and not math.isfinite(number):
                raise UserError(f"{name}={value!r} must be finite.")
        if name in _NOT_NEGATIVE and value < 0:
            raise UserError(f"{name}={value} must be 0 or more.")
        if name in _HIGHEST and value > _HIGHEST[name]:
            raise UserError(f"{name}={value} must be at most {_HIGHEST[name]}.")


def make_loss(
    config: ml_collections.ConfigDict, class_weights: np.ndarray | None = None
) -> losses.Loss:
    """The config's loss; raises UserError for one that cannot be."""
    return losses.Loss(
        multilabel=config.task == "multilabel",
        weights={name: config.loss[name] for name in losses.TERMS},
        class_weights=class_weights,
        label_smoothing=config.loss.label_smoothing,
        focal_gamma=config.loss.focal_gamma,
        ohem_fraction=config.loss.ohem_fraction,
    )


def make_mesh(config: ml_collections.ConfigDict) -> jax.sharding.Mesh:
    """The config's mesh, on which its batches and crops can be split evenly.

    Raises:
        UserError: where they cannot be, or where the devices do not make the mesh.
    """
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch_size(mesh, config.batch_size, config.accumulation_steps)
    crop = tuple(config.augment.crop)
    if crop and sharding.canvas(mesh, crop) != crop:
        raise UserError(
            f"augment.crop={crop}: mesh.spatial={mesh.shape['spatial']} devices cannot "
            f"share {crop[0]} rows evenly; use {sharding.canvas(mesh, crop)[0]}."
        )
    return mesh


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


def preprocessing(
    saved: dict[str, Any] | None, weights: Weights | None, split: datasets.Split
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation, for where the config leaves them open.

    Args:
        saved: metadata of the checkpoint that the run goes on from, whose they are.
        weights: else those that the run starts from.
        split: else its images.
    """
    if saved is not None:
        return saved["mean"], saved["std"]
    if weights is not None:
        return weights.mean, weights.std
    # Images of a single colour have no deviation to divide by.
    return split.mean.tolist(), np.maximum(split.std, 1.0).tolist()


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


class Training(NamedTuple):
    """The compiled parts of a run.

    Attributes:
        create: makes the state of step 0 from a key, where it belongs.
        step: see ``step.make_train_step``.
        schedule: the learning rate of each step.
        shapes: of the state.
        shardings: of the state.
        trainable: tree of bools, like the parameters.
    """

    create: Callable
    step: Callable
    schedule: optax.Schedule
    shapes: state_lib.TrainState
    shardings: state_lib.TrainState
    trainable: Any


def make_training(
    config: ml_collections.ConfigDict,
    model: fcn.FCN,
    split: datasets.Split,
    mesh: jax.sharding.Mesh,
) -> Training:
    """The config's state and step on a mesh; compiles nothing yet.

    Args:
        config: see ``configs/default.py``.
        model: the network.
        split: that is trained on; class weights may come from it.
        mesh: the devices.

    Raises:
        UserError: a pattern or a table that fits no parameter, or wrong weights.
    """
    key = jax.random.key(0)
    params = jax.eval_shape(lambda k: state_lib.init_variables(model, k), key)["params"]
    trainable = optim.trainable_mask(params, config.trainable)
    schedule, tx = make_optimizer(config, trainable)
    create = functools.partial(state_lib.create, model, tx)
    shapes = jax.eval_shape(create, key)
    shardings = sharding.of_state(mesh, shapes)
    step = step_lib.make_train_step(
        model,
        tx,
        trainable=trainable,
        loss=make_loss(
            config,
            losses.resolve_class_weights(
                config.loss.class_weights, split, model.num_classes
            ),
        ),
        reduction=config.loss.reduction,
        accumulation_steps=config.accumulation_steps,
        mesh=mesh,
        state_shardings=shardings,
    )
    create = jax.jit(create, out_shardings=shardings)
    return Training(create, step, schedule, shapes, shardings, trainable)


def count(params: Any, chosen: Any = None) -> int:
    """How many numbers the (chosen) parameters are."""
    chosen = jax.tree.map(lambda _: True, params) if chosen is None else chosen
    return sum(
        math.prod(p.shape) * c
        for p, c in zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    )
