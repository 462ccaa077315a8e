"""Optimizers and learning-rate schedules, and which parameters they may touch."""

import re
from collections.abc import Sequence
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
    chosen = matching(
        [name_of(path) for path, _ in leaves(params)], pattern, "trainable"
    )
    return jax.tree.map_with_path(lambda path, _: name_of(path) in chosen, params)


def matching(names: Sequence[str], pattern: str, field: str) -> set[str]:
    """The names that a pattern matches from their start on; see ``trainable_mask``.

    Args:
        names: of parameters.
        pattern: regular expression.
        field: of the config that has the pattern, for messages.

    Raises:
        UserError: no regular expression, or one that matches nothing.
    """
    regex = _compile(field, pattern)
    found = {name for name in names if regex.match(name)}
    if not found:
        layers = sorted({"/".join(name.split("/")[:2]) for name in names})
        raise UserError(
            f"{field}={pattern!r} matches no parameter; the layers are "
            f"{', '.join(layers)}."
        )
    return found


def leaves(tree: Any) -> list:
    """(path, leaf) pairs of a tree."""
    return jax.tree.leaves_with_path(tree)


def name_of(path) -> str:
    """A tree path as ``encoder/conv1_1/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def multipliers(
    names: Sequence[str], table: Sequence[tuple[str, float, float]]
) -> dict[str, tuple[float, float]]:
    """Each parameter's factors on the learning rate and on the weight decay.

    Caffe's ``lr_mult`` and ``decay_mult``.

    Args:
        names: of the parameters, such as ``encoder/conv1_1/kernel``.
        table: (pattern, learning-rate factor, weight-decay factor); patterns as in
            ``trainable_mask``. The first that matches counts; (1, 1) where none does.

    Raises:
        UserError: a row that is no such triple, or is the first match of no parameter.
    """
    rows = [_row(row) for row in table]
    matches = {
        name: next((row for row in rows if row[0].match(name)), None) for name in names
    }
    for row in rows:
        if not any(match is row for match in matches.values()):
            raise UserError(
                f"optimizer.multipliers: {row[0].pattern!r} is the first pattern to "
                "match for no parameter; correct it, or its place in the table."
            )
    return {n: (row[1], row[2]) if row else (1.0, 1.0) for n, row in matches.items()}


def _row(row) -> tuple[re.Pattern, float, float]:
    try:
        pattern, rate, decay = row
        valid = isinstance(pattern, str) and rate >= 0 and decay >= 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise UserError(
            f"optimizer.multipliers has the row {row!r}; a row is a pattern and two "
            "factors of 0 or more, on the learning rate and on the weight decay."
        )
    return _compile("optimizer.multipliers", pattern), float(rate), float(decay)


def _compile(field: str, pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise UserError(
            f"{field}={pattern!r} is no regular expression ({e}); use for example "
            "'.*' or 'decoder/'."
        ) from e


def make_optimizer(
    name: str,
    *,
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    trainable: Any,
    table: Sequence[tuple[str, float, float]] = (),
) -> optax.GradientTransformation:
    """An optimizer of the trainable parameters; the others get no state at all.

    Args:
        name: one of OPTIMIZERS. At a constant learning rate ``sgd`` is Caffe's rule.
        learning_rate: a number or a schedule of the step.
        momentum: of ``sgd``.
        weight_decay: added to the gradient in ``sgd`` and ``adam`` (L2), apart from it
            in ``adamw``.
        clip_norm: highest norm of the trainable gradients together; 0 for no limit.
        trainable: tree of bools like the parameters, see ``trainable_mask``.
        table: factors by parameter, see ``multipliers``.

    Raises:
        UserError: unknown name, or a wrong table.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"optimizer.name={name!r} is not known; use one of {OPTIMIZERS}."
        )
    factors = multipliers([name_of(path) for path, _ in leaves(trainable)], table)

    def add_decay(updates, params):
        return jax.tree.map_with_path(
            lambda path, u, p: u + weight_decay * factors[name_of(path)][1] * p,
            updates,
            params,
        )

    def multiply_rate(updates, _):
        return jax.tree.map_with_path(
            lambda path, u: u * factors[name_of(path)][0], updates
        )

    decay = [optax.stateless(add_decay)] if weight_decay else []
    rule = {
        "sgd": lambda: [*decay, optax.trace(momentum)],
        "adam": lambda: [*decay, optax.scale_by_adam()],
        "adamw": lambda: [optax.scale_by_adam(), *decay],
    }[name]()
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    rate = [optax.stateless(multiply_rate), optax.scale_by_learning_rate(learning_rate)]
    return optax.partition(
        {True: optax.chain(*clip, *rule, *rate), False: optax.set_to_zero()},
        trainable,
    )
