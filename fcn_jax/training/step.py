"""One optimization step, compiled."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fcn_jax import sharding
from fcn_jax.training import losses, optim
from fcn_jax.training import state as state_lib


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    trainable: Any,
    loss: losses.Loss,
    reduction: str = "mean",
    accumulation_steps: int = 1,
    mesh: jax.sharding.Mesh | None = None,
    state_shardings: Any = None,
) -> Callable:
    """Builds ``step(state, batch, key) -> (state, scalars)``, jitted.

    Args:
        model: an ``fcn.FCN``.
        tx: see ``optim.make_optimizer``.
        trainable: tree of bools like the parameters. Batch statistics of a frozen
            layer stay as they are; the whole network then normalises by recorded
            ones.
        loss: what is made small.
        reduction: what the gradient is of: ``mean``, the loss as it is, or ``sum``, of
            cross-entropy alone, the sum over an image's pixels, mean over the images
            (Caffe's ``normalize: false``).
        accumulation_steps: micro-batches that a batch is worked through in. The
            gradient is that of the whole batch, by whose labels all are divided.
        mesh: the devices; None: one.
        state_shardings: tree of the state's shardings, with a mesh. Parameters that
            are split are gathered at the start of the step, and the gradient is split
            like them before the optimizer takes it.

    Returns:
        A function that donates ``state``. ``batch``: image uint8 [B,H,W,3], size int32
        [B,2], label uint8 [B,H,W] or [B,H,W,C]. ``scalars``: ``loss``, cross-entropy
        always per labelled pixel, and where it has several, each of its terms by name;
        ``grad_norm`` of the trainable parameters, and for ``sum`` that ``summed_loss``.
    """
    update_batch_norm = all(
        trains
        for path, trains in optim.leaves(trainable)
        if "/bn" in optim.name_of(path)
    )

    def objective(params, batch_stats, batch, key, divisors):
        """This part of the batch's share of the loss; its terms, new statistics."""
        # No gradient is computed where none is wanted.
        params = jax.tree.map(
            lambda p, trains: p if trains else jax.lax.stop_gradient(p),
            params,
            trainable,
        )
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            batch["size"],
            train=True,
            update_batch_norm=update_batch_norm,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        sums = loss.sums(logits, batch["label"])
        total = sum(loss.weights[n] * sums[n] / divisors[n] for n in loss.terms)
        return total, (sums, updated.get("batch_stats", {}))

    def gradient(params, *args):
        (_, aux), grads = jax.value_and_grad(objective, has_aux=True)(params, *args)
        if mesh is not None:
            # What is split like the parameters need not be summed up everywhere.
            grads = jax.lax.with_sharding_constraint(grads, state_shardings.params)
        return aux, grads

    def accumulated(params, batch_stats, batch, key, divisors):
        """``gradient`` summed over the micro-batches, one at a time."""

        def add(carry, micro):
            total, batch_stats, i = carry
            (sums, batch_stats), grads = gradient(
                params, batch_stats, micro, jax.random.fold_in(key, i), divisors
            )
            total = jax.tree.map(jnp.add, total, (sums, grads))
            return (total, batch_stats, i + 1), None

        # Every k-th example, so that each device splits its own share of the batch.
        micro = jax.tree.map(
            lambda x: x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1),
            batch,
        )
        zeros = dict.fromkeys(loss.terms, 0.0), jax.tree.map(jnp.zeros_like, params)
        carry, _ = jax.lax.scan(add, (zeros, batch_stats, 0), micro)
        (sums, grads), batch_stats, _ = carry
        return (sums, batch_stats), grads

    out_shardings = mesh and (state_shardings, sharding.replicated(mesh))

    @jax.jit(donate_argnames="state", out_shardings=out_shardings)
    def step(state: state_lib.TrainState, batch: dict, key: jax.Array):
        key = jax.random.fold_in(key, state.step)
        params = state.params if mesh is None else sharding.whole(state.params, mesh)
        compute = gradient if accumulation_steps == 1 else accumulated
        divisors = means = loss.divisors(batch["label"])
        if reduction == "sum":
            num_images = jnp.float32(batch["label"].shape[0])
            divisors = dict.fromkeys(loss.terms, num_images)
        (sums, batch_stats), grads = compute(
            params, state.batch_stats, batch, key, divisors
        )
        terms = {name: sums[name] / means[name] for name in loss.terms}
        scalars = {"loss": sum(loss.weights[n] * terms[n] for n in loss.terms)}
        if len(terms) > 1:
            scalars |= terms
        if reduction == "sum":
            scalars["summed_loss"] = sums["cross_entropy"] / num_images
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return new_state, scalars | {"grad_norm": optax.tree.norm(grads)}

    return step
