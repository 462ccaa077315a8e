"""Optimizers and learning-rate schedules, and which parameters they may touch."""

import re
from typing import Any

import jax
import optax

from fcn_jax.errors import UserError

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("poly", "cosine", "constant")


def make_schedule(
    name: str, *, peak: float, num_steps: int, warmup_steps: int, power: float = 0.9
) -> optax.Schedule:
    """Linear warm-up from 0 to ``peak``, then a decay to 0 at ``num_steps``.

    Args:
        name: one of SCHEDULES; ``poly`` decays as (1 - t) ** power.
        peak: highest learning rate.
        num_steps: length of the run, warm-up included.
        warmup_steps: 0 for none.
        power: of ``poly``.

    Raises:
        UserError: unknown name, or a warm-up as long as the run.
    """
    if name not in SCHEDULES:
        raise UserError(
            f"optimizer.schedule={name!r} is not known; use one of {SCHEDULES}."
        )
    if not 0 <= warmup_steps < num_steps:
        raise UserError(
            f"optimizer.warmup_steps={warmup_steps} leaves nothing of "
            f"num_steps={num_steps}; make it shorter."
        )
    rest = num_steps - warmup_steps
    decay = {
        "poly": lambda: optax.polynomial_schedule(peak, 0.0, power, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }[name]()
    if not warmup_steps:
        return decay
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    # Step 0 would otherwise be taken at a rate of 0.
    return optax.join_schedules([lambda step: warmup(step + 1), decay], [warmup_steps])


def trainable_mask(params: Any, pattern: str) -> Any:
    """Which parameters train: a tree of bools like ``params``.

    Args:
        params: nested dicts.
        pattern: regular expression searched for at the start of names such as
            ``encoder/conv1_1/kernel``; ``.*`` is everything, ``decoder/`` freezes the
            encoder, ``(?!encoder/conv[12]_)`` its first two blocks.

    Raises:
        UserError: no regular expression, or one that matches nothing.
    """
    try:
        regex = re.compile(pattern)
    except re.error as e:
        raise UserError(
            f"trainable={pattern!r} is no regular expression ({e}); use for example "
            "'.*' or 'decoder/'."
        ) from e
    mask = jax.tree.map_with_path(
        lambda path, _: regex.match(name_of(path)) is not None, params
    )
    if not any(jax.tree.leaves(mask)):
        names = sorted({"/".join(name_of(p).split("/")[:2]) for p, _ in leaves(params)})
        raise UserError(
            f"trainable={pattern!r} matches no parameter; the layers are "
            f"{', '.join(names)}."
        )
    return mask


def leaves(tree: Any) -> list:
    """(path, leaf) pairs of a tree."""
    return jax.tree.leaves_with_path(tree)


def name_of(path) -> str:
    """A tree path as ``encoder/conv1_1/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def make_optimizer(
    name: str,
    *,
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    trainable: Any,
) -> optax.GradientTransformation:
    """An optimizer of the trainable parameters; the others get no state at all.

    Args:
        name: one of OPTIMIZERS.
        learning_rate: a number or a schedule of the step.
        momentum: of ``sgd``.
        weight_decay: pulls on kernels only, not on biases and normalisation; added to
            the gradient in ``sgd`` and ``adam`` (L2), apart from it in ``adamw``.
        clip_norm: highest norm of the trainable gradients together; 0 for no limit.
        trainable: tree of bools like the parameters, see ``trainable_mask``.

    Raises:
        UserError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"optimizer.name={name!r} is not known; use one of {OPTIMIZERS}."
        )

    def kernels(params):
        return jax.tree.map_with_path(
            lambda p, _: name_of(p).endswith("kernel"), params
        )

    decay = [optax.add_decayed_weights(weight_decay, kernels)] if weight_decay else []
    rule = {
        "sgd": lambda: [*decay, optax.trace(momentum)],
        "adam": lambda: [*decay, optax.scale_by_adam()],
        "adamw": lambda: [optax.scale_by_adam(), *decay],
    }[name]()
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.partition(
        {
            True: optax.chain(
                *clip, *rule, optax.scale_by_learning_rate(learning_rate)
            ),
            False: optax.set_to_zero(),
        },
        trainable,
    )
