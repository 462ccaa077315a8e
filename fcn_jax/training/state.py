"""What a training step changes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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


def checksum(tree: Any) -> int:
    """The sum of all bits, modulo 2**32: the same wherever the arrays' parts lie.

    Args:
        tree: of arrays of 32-bit numbers.
    """
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        # NumPy, which shares the memory, sums ten times as fast as XLA on CPUs.
        sums = (
            np.asarray(x).view(np.uint32).sum(dtype=np.uint32)
            for x in jax.tree.leaves(tree)
        )
        return sum(i * int(n) for i, n in enumerate(sums, start=1)) % 2**32
    return int(_checksum_of_parts(tree))


@jax.jit
def _checksum_of_parts(tree: Any) -> jax.Array:
    total = jnp.uint32(0)
    for i, x in enumerate(jax.tree.leaves(tree), start=1):
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        total += i * jnp.sum(bits, dtype=jnp.uint32)  # Wraps around, in any order.
    return total
