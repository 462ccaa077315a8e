"""What a training step changes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct


class TrainState(struct.PyTreeNode):
    """Steps taken, parameters, batch-norm statistics and optimizer state."""

    step: jax.Array  # int32 scalar.
    params: Any
    batch_stats: Any  # {} without batch norm.
    opt_state: optax.OptState

    @property
    def variables(self) -> dict:
        """What ``model.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_variables(model: nn.Module, key: jax.Array) -> dict:
    """Fresh parameters and statistics; no array is larger than the parameters.

    The image size is immaterial to a fully convolutional network.
    """
    variables = model.init(key, jnp.zeros((1, 32, 32, 3)))
    return {
        "params": variables["params"],
        "batch_stats": variables.get("batch_stats", {}),
    }


def create(
    model: nn.Module, tx: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """The state at step 0; call it under jit to create the arrays where they live."""
    variables = init_variables(model, key)
    return TrainState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
    )


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether no number of a tree is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


@jax.jit
def checksum(tree: Any) -> jax.Array:
    """The sum of all bits, as uint32: the same wherever the arrays' parts lie."""
    total = jnp.uint32(0)
    for i, x in enumerate(jax.tree.leaves(tree), start=1):
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        total += i * jnp.sum(bits, dtype=jnp.uint32)  # Wraps around, in any order.
    return total
