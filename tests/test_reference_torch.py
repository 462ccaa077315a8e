"""The reference geometry and recipe against PyTorch, the four nets of the release."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import reference_nets  # noqa: E402  Needs PyTorch.

from configs.reference import (  # noqa: E402
    voc_fcn8s,
    voc_fcn8s_atonce,
    voc_fcn16s,
    voc_fcn32s,
)
from fcn_jax.training import losses, optim, setup  # noqa: E402
from fcn_jax.training import state as state_lib  # noqa: E402
from fcn_jax.training import step as step_lib  # noqa: E402

CONFIGS = dict(
    zip(
        reference_nets.NETS,
        (voc_fcn32s, voc_fcn16s, voc_fcn8s, voc_fcn8s_atonce),
        strict=True,
    )
)
SIZES = ((500, 375), (375, 500), (333, 500), (17, 19))
INPUTS = "image", "label", "size"
# Of the logits, and of gradients: in float32 a few pixels' go another way by rounding.
TOLERANCES = {jnp.float64: (1e-9, 1e-9), jnp.float32: (1e-4, 1e-2)}


def make_model(net, width, dtype):
    config = CONFIGS[net].get_config()
    config.model.update(width=width, dropout=0.0)
    return setup.make_model(config, 21).clone(dtype=dtype)


def as_variables(tensors):
    """OIHW, BGR and flat names to ours, written out once more by hand."""
    params = {"encoder": {}, "decoder": {}}
    for name, tensor in tensors.items():
        layer, kind = name.split(".")
        if layer.startswith("upscore"):
            continue
        part = "decoder" if layer.startswith("score") else "encoder"
        array = tensor.detach().numpy()
        if kind == "weight":
            array = array.transpose(2, 3, 1, 0)
        if name == "conv1_1.weight":
            array = array[:, :, ::-1]
        leaf = {"weight": "kernel", "bias": "bias"}[kind]
        params[part].setdefault(layer, {})[leaf] = np.array(array)
    return {"params": params, "batch_stats": {}}


def make_batch(sizes, seed=0):
    """One canvas with an image and its label at each size; rubbish around them."""
    rng = np.random.default_rng(seed)
    canvas = tuple(np.max(sizes, 0))
    images = rng.integers(0, 256, (len(sizes), *canvas, 3), np.uint8)
    labels = np.full((len(sizes), *canvas), 255, np.uint8)
    for label, (h, w) in zip(labels, sizes, strict=True):
        label[:h, :w] = rng.integers(0, 21, (h, w))
        label[: h // 9, :w] = 255
    return {"image": images, "size": np.array(sizes, np.int32), "label": labels}


def pytorchs(net, width, batch):
    """Weights, and with them logits, the summed loss of a batch and its gradients.

    In float64: in float32 the two sides round differently (and PyTorch differently on
    each CPU), and where that decides which pixel a max pooling takes, or whether a ReLU
    is on, a whole pixel's gradient goes another way.
    """
    weights = {
        name: tensor.double().requires_grad_()
        for name, tensor in reference_nets.random_weights(net, width).items()
    }
    logits, total = [], 0.0
    for image, label, (h, w) in zip(*map(batch.get, INPUTS), strict=True):
        bgr = reference_nets.from_rgb(image[:h, :w], torch.float64)
        one = reference_nets.forward(net, weights, bgr)
        loss = reference_nets.summed_loss(one, label[:h, :w])
        loss.backward()
        total += loss.item()
        logits.append(one.detach()[0].permute(1, 2, 0).numpy())
    gradients = {
        name: tensor.grad for name, tensor in weights.items() if "upscore" not in name
    }
    return as_variables(weights), logits, total, as_variables(gradients)["params"]


def ours(net, width, batch, variables, dtype):
    """The same of this project's network, computed in ``dtype``."""
    model = make_model(net, width, dtype)

    def summed_loss(params, batch):
        logits = model.apply(variables | params, batch["image"], batch["size"])
        return losses.Loss().sums(logits, batch["label"])["cross_entropy"], logits

    with jax.enable_x64(dtype == jnp.float64):
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables["params"])
        (total, logits), gradients = jax.jit(
            jax.value_and_grad(summed_loss, has_aux=True)
        )({"params": params}, batch)
        assert logits.dtype == dtype
    return jax.device_get((logits, total, gradients["params"]))


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def compare(net, width, sizes, dtypes):
    """Logits and the gradient of the summed loss of a batch, on both sides."""
    batch = make_batch(sizes)
    variables, logits, total, gradients = pytorchs(net, width, batch)
    for dtype in dtypes:
        tolerance, of_gradients = TOLERANCES[dtype]
        actual = ours(net, width, batch, variables, dtype)
        for padded, (h, w), expected in zip(actual[0], sizes, logits, strict=True):
            error = relative_error(padded[:h, :w], expected)
            assert error < tolerance, (net, dtype, (h, w), error)
        np.testing.assert_allclose(actual[1], total, rtol=tolerance)
        errors = jax.tree.map(relative_error, actual[2], gradients)
        for path, error in jax.tree.leaves_with_path(errors):
            assert error < of_gradients, (net, dtype, jax.tree_util.keystr(path), error)


@pytest.mark.parametrize("net", reference_nets.NETS)
def test_logits_and_gradients_of_mixed_sizes_equal_pytorchs(net):
    compare(net, 1 / 32, SIZES, [jnp.float64])


@pytest.mark.parametrize("net", reference_nets.NETS)
def test_images_of_a_few_pixels_equal_pytorchs(net):
    compare(net, 1 / 32, ((1, 1), (2, 31), (33, 1), (64, 65)), TOLERANCES)


def test_five_steps_equal_caffes_rule():
    """v = m v + lr lr_mult (g + wd decay_mult w); w -= v, on PyTorch's gradients."""
    net, width, sizes = "fcn8s", 1 / 32, ((40, 33),)
    config = CONFIGS[net].get_config()
    # The rate of FCN-8s, 1e-14, would leave float32 parameters as they are.
    rate, momentum, decay = 1e-5, 0.99, 5e-2
    config.optimizer.learning_rate, config.optimizer.weight_decay = rate, decay
    assert config.optimizer.momentum == momentum
    values = {
        name: tensor.double().requires_grad_()
        for name, tensor in reference_nets.random_weights(net, width).items()
    }
    velocity = {name: torch.zeros_like(t) for name, t in values.items()}
    start = as_variables(values)
    with jax.enable_x64(True):
        trainable = optim.trainable_mask(start["params"], config.trainable)
        _, tx = setup.make_optimizer(config, trainable)
        step = step_lib.make_train_step(
            make_model(net, width, jnp.float64),
            tx,
            trainable=trainable,
            loss=losses.Loss(),
            reduction=config.loss.reduction,
        )
        params = jax.tree.map(jnp.asarray, start["params"])
        state = state_lib.TrainState(
            jnp.int32(0), params, {}, opt_state=tx.init(params)
        )
        steps = []
        for i in range(5):
            state, scalars = step(state, make_batch(sizes, seed=i), jax.random.key(0))
            steps.append(scalars)
        params = jax.device_get(state.params)
    for i, scalars in enumerate(steps):
        batch = make_batch(sizes, seed=i)
        bgr = reference_nets.from_rgb(batch["image"][0], torch.float64)
        logits = reference_nets.forward(net, values, bgr)
        loss = reference_nets.summed_loss(logits, batch["label"][0])
        np.testing.assert_allclose(scalars["summed_loss"], loss.item(), rtol=1e-6)
        labelled = (batch["label"] != 255).sum()
        np.testing.assert_allclose(scalars["loss"], loss.item() / labelled, rtol=1e-6)
        gradients = torch.autograd.grad(loss, values.values(), allow_unused=True)
        for (name, value), gradient in zip(values.items(), gradients, strict=True):
            if name.startswith("upscore"):
                continue  # lr_mult 0.
            lr_mult, decay_mult = (2, 0) if name.endswith("bias") else (1, 1)
            gradient = gradient + decay * decay_mult * value.detach()
            velocity[name] = momentum * velocity[name] + rate * lr_mult * gradient
            value.data -= velocity[name]
    end = as_variables(values)["params"]
    moves = jax.tree.map(np.subtract, end, start["params"])
    errors = jax.tree.map(
        lambda ours, end, moved: np.abs(ours - end).max() / np.abs(moved).max(),
        params,
        end,
        moves,
    )
    for path, error in jax.tree.leaves_with_path(errors):
        assert error < 1e-6, (jax.tree_util.keystr(path), error)


@pytest.mark.slow
@pytest.mark.parametrize("net", reference_nets.NETS)
def test_full_width_equals_pytorchs(net):
    compare(net, 1.0, SIZES[1:2] + SIZES[3:], [jnp.float32])
