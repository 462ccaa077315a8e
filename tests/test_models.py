"""The network against counts from the literature, NumPy loops, and itself alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.errors import UserError
from fcn_jax.models import convolution, fcn, upsampling, vgg
from fcn_jax.training import state

SMALL = {"depth": 11, "width": 0.0625, "score_init": "lecun_normal", "dropout": 0.0}


def variables_of(model, seed=0):
    return jax.jit(lambda key: state.init_variables(model, key))(jax.random.key(seed))


def random_statistics(variables):
    """Statistics that differ from the initial ones, so that they matter."""
    rng = np.random.default_rng(0)
    return variables | {
        "batch_stats": jax.tree.map(
            lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32),
            variables["batch_stats"],
        )
    }


@pytest.mark.parametrize(
    ("stride", "count"), [(32, 134_346_581), (16, 134_357_354), (8, 134_362_751)]
)
def test_parameter_count_is_the_papers(stride, count):
    model = fcn.FCN(num_classes=21, stride=stride)
    shapes = jax.eval_shape(lambda k: state.init_variables(model, k), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ("depth", "count"),
    # torchvision's vgg11/13/16/19 less the last layer (4096 x 1000 + 1000).
    [
        (11, 132_863_336 - 4_097_000),
        (13, 133_047_848 - 4_097_000),
        (16, 138_357_544 - 4_097_000),
        (19, 143_667_240 - 4_097_000),
    ],
)
def test_encoder_parameter_counts_are_torchvisions(depth, count):
    model = fcn.FCN(num_classes=2, depth=depth)
    shapes = jax.eval_shape(lambda k: state.init_variables(model, k), jax.random.key(0))
    encoder = shapes["params"]["encoder"]
    assert sum(x.size for x in jax.tree.leaves(encoder)) == count


@pytest.mark.parametrize(
    ("geometry", "stride", "method", "batch_norm"),
    [
        ("same", 8, "bilinear", True),
        ("same", 8, "learned", False),
        ("same", 16, "resize", False),
        ("same", 32, "resize", True),
        ("caffe", 8, "bilinear", False),
        ("caffe", 16, "learned", True),
        ("caffe", 32, "bilinear", False),
    ],
)
def test_logits_equal_those_of_each_image_alone(geometry, stride, method, batch_norm):
    model = fcn.FCN(
        5,
        geometry=geometry,
        stride=stride,
        upsampling=method,
        batch_norm=batch_norm,
        std=(60.0,) * 3,
        **SMALL,
    )
    variables = random_statistics(variables_of(model))
    rng = np.random.default_rng(1)
    sizes = np.array([[70, 90], [33, 17], [1, 1], [50, 64]])
    images = rng.integers(0, 256, (4, 70, 90, 3), np.uint8)  # Rubbish outside, too.
    apply = jax.jit(model.apply, static_argnames=("update_batch_norm", "mutable"))
    together = apply(variables, images, sizes)
    for i, (h, w) in enumerate(sizes):
        alone = apply(variables, images[i : i + 1, :h, :w])
        np.testing.assert_allclose(together[i, :h, :w], alone[0], rtol=0, atol=1e-4)
        if batch_norm:  # With the batch's own statistics: a batch of this image only.
            padded, a = apply(
                variables,
                images[i : i + 1],
                sizes[i : i + 1],
                update_batch_norm=True,
                mutable=("batch_stats",),
            )
            alone, b = apply(
                variables,
                images[i : i + 1, :h, :w],
                update_batch_norm=True,
                mutable=("batch_stats",),
            )
            np.testing.assert_allclose(padded[0, :h, :w], alone[0], rtol=0, atol=1e-4)
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_batch_norm_counts_the_pixels_of_all_images_and_no_others():
    model = fcn.FCN(2, batch_norm=True, **SMALL)
    variables = variables_of(model)
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (3, 40, 40, 3), np.uint8)
    sizes = np.array([[40, 40], [7, 31], [1, 2]])
    _, updated = jax.jit(
        lambda v: model.apply(
            v, images, sizes, update_batch_norm=True, mutable=["batch_stats"]
        )
    )(variables)
    kernel = np.asarray(variables["params"]["encoder"]["conv1_1"]["kernel"])
    pixels = []  # Outputs of conv1_1 inside the images, by a loop.
    for image, (h, w) in zip(images, sizes, strict=True):
        x = np.pad(
            image[:h, :w].astype(np.float32) - np.float32(model.mean),
            ((1, 1), (1, 1), (0, 0)),
        )
        for i in range(h):
            for j in range(w):
                pixels.append(np.einsum("abc,abcd->d", x[i : i + 3, j : j + 3], kernel))
    statistics = updated["batch_stats"]["encoder"]["bn1_1"]
    mean, var = np.mean(pixels, 0), np.var(pixels, 0)
    np.testing.assert_allclose(statistics["mean"], 0.1 * mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * var, rtol=1e-3)


def transposed_conv_loop(x, kernel):
    """Caffe's Deconvolution, kernel 2s and stride s, all of it."""
    _, h, w, _ = x.shape
    s = kernel.shape[0] // 2
    full = np.zeros((x.shape[0], (h + 1) * s, (w + 1) * s, kernel.shape[-1]))
    for i in range(h):
        for j in range(w):
            full[:, i * s : (i + 2) * s, j * s : (j + 2) * s] += np.einsum(
                "bc,ijcd->bijd", x[:, i, j], kernel
            )
    return full


# Stride, offset and size of a window: aligned ones, and the reference's.
WINDOWS = [
    (2, 1, (6, 8)),
    (2, 0, (8, 10)),
    (8, 4, (24, 32)),
    (8, 31, (1, 9)),
    (16, 27, (30, 20)),
    (32, 19, (70, 100)),
]


@pytest.mark.parametrize(("stride", "offset", "size"), WINDOWS)
def test_transposed_convolution_equals_a_loop(stride, offset, size):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    kernel = rng.normal(size=(2 * stride, 2 * stride, 3, 2)).astype(np.float32)
    full = transposed_conv_loop(x, kernel)
    np.testing.assert_allclose(
        upsampling.transposed_conv(jnp.asarray(x), jnp.asarray(kernel), offset, size),
        full[:, offset : offset + size[0], offset : offset + size[1]],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(("stride", "offset", "size"), WINDOWS)
def test_bilinear_upsampling_equals_the_papers_kernel(stride, offset, size):
    # upsample_filt of the reference: factor = (k + 1) // 2, centre = factor - 0.5.
    k = 2 * stride
    factor = (k + 1) // 2
    y, x = np.ogrid[:k, :k]
    filt = (1 - abs(y - factor + 0.5) / factor) * (1 - abs(x - factor + 0.5) / factor)
    kernel = np.zeros((k, k, 3, 3))
    kernel[:, :, range(3), range(3)] = filt[..., None]
    x = np.random.default_rng(4).normal(size=(1, 5, 4, 3)).astype(np.float32)
    full = transposed_conv_loop(x, kernel)
    np.testing.assert_allclose(
        upsampling.transposed_bilinear(jnp.asarray(x), stride, offset, size),
        full[:, offset : offset + size[0], offset : offset + size[1]],
        rtol=0,
        atol=1e-5,
    )
    started = upsampling.bilinear_kernel_init(None, kernel.shape)
    np.testing.assert_allclose(started, kernel, rtol=0, atol=1e-6)


def test_resizing_equals_jax_image_resize():
    x = np.random.default_rng(5).normal(size=(1, 5, 3, 2)).astype(np.float32)
    for height, width in ((40, 24), (11, 7), (5, 3), (3, 2)):
        expected = jax.image.resize(x, (1, height, width, 2), "linear", antialias=False)
        canvas = np.zeros((1, 9, 9, 2), np.float32)
        canvas[:, :5, :3] = x
        actual = upsampling.resize(
            jnp.asarray(canvas),
            np.array([[5, 3]]),
            np.array([[height, width]]),
            (48, 30),
        )
        np.testing.assert_allclose(
            actual[:, :height, :width], expected, rtol=0, atol=1e-5
        )
    layer = upsampling.Upsample(8, "resize")
    actual = layer.apply({}, jnp.asarray(x), jnp.ones((1, 5, 3, 1), bool), 4, (40, 24))
    expected = jax.image.resize(x, (1, 40, 24, 2), "linear", antialias=False)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_both_forms_of_a_convolution_agree():
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(7, 7, 3, 4)), jnp.float32)

    def value_and_gradients(form):
        return jax.value_and_grad(lambda x, k: jnp.sin(form(x, k)).sum(), (0, 1))(
            x, kernel
        )

    for padding in ("SAME", "VALID"):
        x = x if padding == "SAME" else jnp.pad(x, ((0, 0), (1, 1), (3, 2), (0, 0)))
        a = value_and_gradients(partial(convolution.conv2d, padding=padding))
        b = value_and_gradients(partial(convolution._native, padding=padding))
        for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-3, atol=1e-3)


def test_score_layers_start_at_zero_unless_asked():
    logits = []
    for score_init in ("zeros", "lecun_normal"):
        model = fcn.FCN(3, **(SMALL | {"score_init": score_init}))
        images = np.full((1, 9, 9, 3), 50)
        logits.append(jax.jit(model.apply)(variables_of(model), images))
    assert not logits[0].any()
    assert logits[1].any()


def test_dropout_drops_single_units_and_only_in_training():
    encoder = vgg.VGG(11, 0.0625, dropout=0.5)
    x, sizes = jnp.ones((1, 64, 64, 3)), np.array([[64, 64]])
    modes = {"train": False, "update_batch_norm": False}
    variables = encoder.init(jax.random.key(0), x, sizes, **modes)
    variables["params"]["fc7"]["bias"] += 1.0  # Away from what ReLU sets to zero.
    whole = encoder.apply(variables, x, sizes, **modes)["fc7"].x
    dropped = encoder.apply(
        variables,
        x,
        sizes,
        **(modes | {"train": True}),
        rngs={"dropout": jax.random.key(1)},
    )["fc7"].x
    assert 0.4 < float((dropped[whole > 0] == 0).mean()) < 0.6
    assert ((dropped == 0).any((1, 2)) & (dropped != 0).any((1, 2))).any()


def test_rematerialisation_changes_no_gradient():
    x = np.random.default_rng(7).integers(0, 256, (2, 40, 40, 3), np.uint8)
    gradients = []
    for remat in (False, True):
        model = fcn.FCN(3, batch_norm=True, remat=remat, std=(60.0,) * 3, **SMALL)
        variables = variables_of(model)

        def loss(params, model=model, variables=variables):
            y, _ = model.apply(
                variables | {"params": params},
                x,
                update_batch_norm=True,
                mutable=["batch_stats"],
            )
            return (y**2).mean()

        gradients.append(jax.jit(jax.grad(loss))(variables["params"]))
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stride": 4}, "model.stride=4"),
        ({"depth": 12}, "model.depth=12"),
        ({"upsampling": "nearest"}, "model.upsampling='nearest'"),
        ({"geometry": "valid"}, "model.geometry='valid'"),
        (
            {"geometry": "caffe", "upsampling": "resize"},
            "'resize' has no meaning with model.geometry='caffe'",
        ),
        ({"skip_scales": (0.01,)}, "model.skip_scales"),
        ({"score_init": "ones"}, "model.score_init='ones'"),
        ({"dropout": 1.0}, "model.dropout=1.0"),
        ({"width": 0.0}, "model.width=0.0"),
        ({"mean": (1.0, 2.0)}, "model.mean=(1.0, 2.0)"),
        ({"std": (1.0, 0.0, 1.0)}, "model.std=(1.0, 0.0, 1.0)"),
        ({"dtype": "float16"}, "model.dtype='float16'"),
    ],
)
def test_impossible_settings_are_named(fields, message):
    with pytest.raises(UserError, match="model") as error:
        fcn.create(3, **fields)
    assert message in str(error.value)
