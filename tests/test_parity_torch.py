"""The network's forward and backward pass against PyTorch, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.models import fcn, vgg
from fcn_jax.training import losses, state

torch = pytest.importorskip("torch")
F = torch.nn.functional


def as_torch(variables):
    """Parameters and statistics by layer, kernels as OIHW, with gradients."""
    layers = {}
    merged = variables["params"]["encoder"] | variables["params"]["decoder"]
    for name, leaves in merged.items():
        layers[name] = {
            leaf: torch.tensor(np.asarray(x).transpose(3, 2, 0, 1).copy())
            if leaf == "kernel" and not name.startswith("upscore")
            else torch.tensor(np.asarray(x))
            for leaf, x in leaves.items()
        }
        for x in layers[name].values():
            x.requires_grad_()
    return layers


def forward(layers, images, *, depth, stride, batch_norm):
    """FCN in PyTorch's own layers: [B,H,W,3] -> logits [B,C,H,W]."""

    def conv(x, name, padding):
        return F.conv2d(
            x, layers[name]["kernel"], layers[name]["bias"], padding=padding
        )

    def up(x, factor, name, size):
        kernel = layers[name]["kernel"].permute(2, 3, 0, 1)
        x = F.conv_transpose2d(x, kernel, stride=factor, padding=factor // 2)
        return x[:, :, : size[0], : size[1]]

    x = torch.tensor(images).permute(0, 3, 1, 2)
    size = x.shape[2:]
    pools = {}
    for block, convs in enumerate(vgg.BLOCKS[depth], start=1):
        for i in range(1, convs + 1):
            x = conv(x, f"conv{block}_{i}", 1)
            if batch_norm:
                p = layers[f"bn{block}_{i}"]
                x = F.batch_norm(x, None, None, p["scale"], p["bias"], training=True)
            x = F.relu(x)
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pools[block] = x
    x = F.relu(conv(F.relu(conv(x, "fc6", 3)), "fc7", 0))
    x = conv(x, "score_fr", 0)
    if stride <= 16:
        y = conv(pools[4], "score_pool4", 0)
        x = up(x, 2, "upscore2", y.shape[2:]) + y
    if stride == 8:
        y = conv(pools[3], "score_pool3", 0)
        x = up(x, 2, "upscore_pool4", y.shape[2:]) + y
    last = "upscore" if stride == 32 else f"upscore{stride}"
    return up(x, stride, last, size)


@pytest.mark.parametrize(
    ("depth", "stride", "batch_norm", "size"),
    [(16, 8, False, (45, 70)), (11, 16, True, (64, 64)), (11, 32, False, (33, 97))],
)
def test_logits_and_gradients_equal_pytorchs(depth, stride, batch_norm, size):
    model = fcn.FCN(
        5,
        stride=stride,
        depth=depth,
        width=0.125,
        batch_norm=batch_norm,
        dropout=0.0,
        upsampling="learned",
        score_init="lecun_normal",
        mean=(0.0, 0.0, 0.0),
    )
    variables = state.init_variables(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *size, 3)).astype(np.float32)
    labels = rng.integers(0, 5, (2, *size))
    labels[:, :5] = 255

    def loss(params):
        logits, _ = model.apply(
            variables | {"params": params},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        loss = losses.Loss()
        total = loss.sums(logits, jnp.asarray(labels))["cross_entropy"]
        return total / loss.divisors(jnp.asarray(labels))["cross_entropy"], logits

    (value, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        variables["params"]
    )
    layers = as_torch(variables)
    expected = forward(
        layers, images, depth=depth, stride=stride, batch_norm=batch_norm
    )
    torch_loss = F.cross_entropy(expected, torch.tensor(labels), ignore_index=255)
    torch_loss.backward()

    expected = expected.detach().permute(0, 2, 3, 1).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, rtol=0, atol=1e-4)
    np.testing.assert_allclose(value, torch_loss.item(), rtol=1e-4)
    # A bias before batch norm has no gradient but rounding: compare on a scale that
    # is at least a thousandth of the largest.
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    for name, leaves in (grads["encoder"] | grads["decoder"]).items():
        for leaf, actual in leaves.items():
            expected = layers[name][leaf].grad.numpy()
            if leaf == "kernel" and not name.startswith("upscore"):
                expected = expected.transpose(2, 3, 1, 0)
            scale = max(np.abs(expected).max(), 1e-3 * largest)
            np.testing.assert_allclose(
                actual / scale, expected / scale, rtol=0, atol=2e-3, err_msg=name
            )
