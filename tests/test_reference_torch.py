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


def make_model(net, width, **fields):
    config = CONFIGS[net].get_config()
    config.model.width = width
    config.model.update(fields)
    return setup.make_model(config, 21)


def as_variables(weights):
    """OIHW, BGR and flat names to ours, written out once more by hand."""
    params = {"encoder": {}, "decoder": {}}
    for name, tensor in weights.items():
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
        params[part].setdefault(layer, {})[leaf] = jnp.asarray(array)
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


def compare(net, width, sizes, *, tolerance):
    """Logits and the gradient of the summed loss of a batch, on both sides."""
    weights = reference_nets.random_weights(net, width)
    for tensor in weights.values():
        tensor.requires_grad_()
    model = make_model(net, width, dropout=0.0)
    batch = make_batch(sizes)

    def summed_loss(params):
        logits = model.apply(
            {"params": params, "batch_stats": {}}, batch["image"], batch["size"]
        )
        return losses.Loss().sums(logits, batch["label"])["cross_entropy"], logits

    (loss, logits), grads = jax.jit(jax.value_and_grad(summed_loss, has_aux=True))(
        as_variables(weights)["params"]
    )
    expected_loss = 0.0
    for i, (h, w) in enumerate(sizes):
        bgr = reference_nets.from_rgb(batch["image"][i, :h, :w])
        expected = reference_nets.forward(net, weights, bgr)
        one = reference_nets.summed_loss(expected, batch["label"][i, :h, :w])
        one.backward()
        expected_loss += one.item()
        expected = expected.detach()[0].permute(1, 2, 0).numpy()
        error = np.abs(logits[i, :h, :w] - expected).max() / np.abs(expected).max()
        assert error < tolerance, (net, (h, w), error)
    np.testing.assert_allclose(loss, expected_loss, rtol=tolerance)
    gradients = {
        f"{name}.{kind}": torch.tensor(np.zeros(0)) if t.grad is None else t.grad
        for name, kind, t in ((*n.split("."), t) for n, t in weights.items())
    }
    expected = as_variables(gradients)["params"]
    for part, layers in grads.items():
        for layer, leaves in layers.items():
            for leaf, actual in leaves.items():
                wanted = np.asarray(expected[part][layer][leaf])
                error = np.abs(actual - wanted).max() / np.abs(wanted).max()
                assert error < tolerance, (net, layer, leaf, error)


@pytest.mark.parametrize("net", reference_nets.NETS)
def test_logits_and_gradients_of_mixed_sizes_equal_pytorchs(net):
    compare(net, 1 / 16, SIZES, tolerance=1e-3)


@pytest.mark.parametrize("net", reference_nets.NETS)
def test_images_of_a_few_pixels_equal_pytorchs(net):
    compare(net, 1 / 32, ((1, 1), (2, 31), (33, 1), (64, 65)), tolerance=1e-3)


def test_five_steps_equal_caffes_rule():
    """v = m v + lr lr_mult (g + wd decay_mult w); w -= v, on PyTorch's gradients."""
    net, width, sizes = "fcn8s", 1 / 32, ((40, 33),)
    config = CONFIGS[net].get_config()
    # The rate of FCN-8s, 1e-14, would leave float32 parameters as they are.
    rate, momentum, decay = 1e-5, 0.99, 5e-2
    config.optimizer.learning_rate, config.optimizer.weight_decay = rate, decay
    assert config.optimizer.momentum == momentum
    weights = reference_nets.random_weights(net, width)
    model = make_model(net, width, dropout=0.0)
    variables = as_variables(weights)
    trainable = optim.trainable_mask(variables["params"], config.trainable)
    _, tx = setup.make_optimizer(config, trainable)
    step = step_lib.make_train_step(
        model,
        tx,
        trainable=trainable,
        loss=losses.Loss(),
        reduction=config.loss.reduction,
    )
    state = state_lib.TrainState(
        step=jnp.int32(0), opt_state=tx.init(variables["params"]), **variables
    )
    velocity = {name: np.zeros(t.shape) for name, t in weights.items()}
    values = {name: t.numpy().astype(np.float64) for name, t in weights.items()}
    for i in range(5):
        batch = make_batch(sizes, seed=i)
        state, scalars = step(state, batch, jax.random.key(0))
        tensors = {
            name: torch.tensor(v, dtype=torch.float32, requires_grad=True)
            for name, v in values.items()
        }
        logits = reference_nets.forward(
            net, tensors, reference_nets.from_rgb(batch["image"][0])
        )
        loss = reference_nets.summed_loss(logits, batch["label"][0])
        loss.backward()
        np.testing.assert_allclose(scalars["summed_loss"], loss.item(), rtol=1e-4)
        labelled = (batch["label"] != 255).sum()
        np.testing.assert_allclose(scalars["loss"], loss.item() / labelled, rtol=1e-4)
        for name, tensor in tensors.items():
            if name.startswith("upscore"):
                continue  # lr_mult 0.
            bias = name.endswith("bias")
            lr_mult, decay_mult = (2, 0) if bias else (1, 1)
            gradient = tensor.grad.numpy() + decay * decay_mult * values[name]
            velocity[name] = momentum * velocity[name] + rate * lr_mult * gradient
            values[name] = values[name] - velocity[name]
    start = as_variables(weights)["params"]
    end = as_variables({n: torch.tensor(v) for n, v in values.items()})["params"]
    for part, layers in state.params.items():
        for layer, leaves in layers.items():
            for leaf, actual in leaves.items():
                moved = np.asarray(end[part][layer][leaf] - start[part][layer][leaf])
                error = np.abs(actual - start[part][layer][leaf] - moved).max()
                assert error < 2e-3 * np.abs(moved).max(), (layer, leaf, error)


@pytest.mark.slow
@pytest.mark.parametrize("net", reference_nets.NETS)
def test_full_width_equals_pytorchs(net):
    compare(net, 1.0, SIZES[1:2] + SIZES[3:], tolerance=1e-3)
