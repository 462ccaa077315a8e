"""Losses, optimizers and the step against NumPy, and against the step done apart."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.data import datasets
from fcn_jax.errors import UserError
from fcn_jax.models import fcn
from fcn_jax.training import losses, optim
from fcn_jax.training import state as state_lib
from fcn_jax.training import step as step_lib


def split_with(pixel_counts, image_pixel_counts):
    return datasets.Split(
        source=[],
        max_size=(1, 1),
        pixel_counts=np.array(pixel_counts),
        image_pixel_counts=np.array(image_pixel_counts),
        num_labelled=sum(pixel_counts),
        mean=np.zeros(3),
        std=np.ones(3),
    )


def test_median_frequency_weights():
    # Frequencies 80/100, 20/100 and 10/50; the median is 0.2. The last never occurs.
    split = split_with([80, 20, 10, 0], [100, 100, 50, 0])
    weights = losses.resolve_class_weights("median_frequency", split, 4)
    np.testing.assert_allclose(weights, [0.25, 1.0, 1.0, 1.0])
    roots = losses.resolve_class_weights("root_median_frequency", split, 4)
    np.testing.assert_allclose(roots, [0.5, 1.0, 1.0, 1.0])


def test_class_weights_as_numbers():
    split = split_with([1, 1], [2, 2])
    assert losses.resolve_class_weights("", split, 2) is None
    np.testing.assert_array_equal(
        losses.resolve_class_weights("1, 0.5", split, 2), [1, 0.5]
    )
    for bad in ("1", "1,2,3", "1,-1", "0,0", "balanced", "1,x"):
        with pytest.raises(UserError, match="loss.class_weights"):
            losses.resolve_class_weights(bad, split, 2)


def test_schedules_warm_up_and_decay():
    poly = optim.make_schedule("poly", peak=2.0, num_steps=110, warmup_steps=10)
    np.testing.assert_allclose([poly(0), poly(4), poly(9)], [0.2, 1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(poly(10 + 50), 2 * 0.5**0.9, rtol=1e-6)
    np.testing.assert_allclose(poly(110), 0, atol=1e-6)
    cosine = optim.make_schedule("cosine", peak=2.0, num_steps=100, warmup_steps=0)
    np.testing.assert_allclose(
        [cosine(0), cosine(25), cosine(100)],
        [2.0, 1 + np.cos(np.pi / 4), 0],
        rtol=1e-6,
        atol=1e-7,
    )
    constant = optim.make_schedule("constant", peak=2.0, num_steps=9, warmup_steps=0)
    assert constant(8) == 2.0
    with pytest.raises(UserError, match="optimizer.schedule='step'"):
        optim.make_schedule("step", peak=1, num_steps=9, warmup_steps=0)
    with pytest.raises(UserError, match="optimizer.warmup_steps=9"):
        optim.make_schedule("poly", peak=1, num_steps=9, warmup_steps=9)


PARAMS = {
    "encoder": {
        "conv1_1": {"kernel": jnp.array([2.0, -1.0]), "bias": jnp.array([1.0])}
    },
    "decoder": {"score_fr": {"kernel": jnp.array([0.5]), "bias": jnp.array([0.0])}},
}


def run_optimizer(name, steps=4, **kwargs):
    """Parameters after some steps on gradients 0.1, 0.2, ... times the parameter."""
    trainable = optim.trainable_mask(PARAMS, kwargs.pop("trainable", ".*"))
    tx = optim.make_optimizer(name, learning_rate=0.1, trainable=trainable, **kwargs)
    params, state = PARAMS, tx.init(PARAMS)
    for i in range(steps):
        grads = jax.tree.map(lambda p, i=i: 0.1 * (i + 1) * p + 0.3, params)
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_equals_its_paper(name):
    params, _ = run_optimizer(name, weight_decay=0.01)
    w = np.asarray(PARAMS["encoder"]["conv1_1"]["kernel"], float)
    m = v = 0.0
    for i in range(4):
        g = 0.1 * (i + 1) * w + 0.3 + (0.01 * w if name == "adam" else 0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9 ** (i + 1))) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
        w = w - 0.1 * (step + (0.01 * w if name == "adamw" else 0))
    np.testing.assert_allclose(params["encoder"]["conv1_1"]["kernel"], w, rtol=1e-5)


def test_multipliers_scale_rate_and_decay_by_the_first_pattern_that_matches():
    table = ((".*/bias", 2.0, 0.0), ("decoder/", 10.0, 3.0))
    params, _ = run_optimizer("sgd", momentum=0.9, weight_decay=0.01, table=table)
    for path, start in optim.leaves(PARAMS):
        name = optim.name_of(path)
        rate, decay = 1.0, 1.0
        if name.startswith("decoder"):
            rate, decay = 10.0, 3.0
        if name.endswith("bias"):
            rate, decay = 2.0, 0.0
        w, v = np.asarray(start, float), 0.0
        for i in range(4):  # Caffe's rule.
            g = 0.1 * (i + 1) * w + 0.3
            v = 0.9 * v + 0.1 * rate * (g + 0.01 * decay * w)
            w = w - v
        layer, group, leaf = (k.key for k in path)
        np.testing.assert_allclose(params[layer][group][leaf], w, rtol=1e-6)


def test_the_sum_reduction_is_the_mean_times_the_pixels_of_an_image():
    batch, results = make_batch(), {}
    for reduction in ("mean", "sum"):
        state, step = make_step(reduction=reduction)
        results[reduction] = step(state, batch, jax.random.key(1))[1]
    pixels = (batch["label"] != 255).sum() / len(batch["label"])
    mean, summed = results["mean"], results["sum"]
    np.testing.assert_allclose(mean["loss"], summed["loss"], rtol=1e-6)
    np.testing.assert_allclose(summed["summed_loss"], pixels * mean["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        summed["grad_norm"], pixels * mean["grad_norm"], rtol=1e-5
    )


def test_clipping_bounds_the_norm_of_what_trains():
    params, _ = run_optimizer("sgd", 1, clip_norm=0.01, trainable="decoder/")
    moved = jax.tree.leaves(jax.tree.map(jnp.subtract, params, PARAMS))
    norm = np.sqrt(sum((np.asarray(x) ** 2).sum() for x in moved))
    np.testing.assert_allclose(norm, 0.1 * 0.01, rtol=1e-4)


def test_frozen_parameters_do_not_move_and_have_no_momentum():
    params, state = run_optimizer("sgd", weight_decay=0.1, trainable="decoder/")
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), params["encoder"], PARAMS["encoder"])
    )
    assert (params["decoder"]["score_fr"]["kernel"] != 0.5).all()
    momenta = [optim.name_of(path) for path, _ in optim.leaves(state)]
    assert any("decoder" in name for name in momenta)
    assert not any("encoder" in name for name in momenta)


def test_bad_patterns_and_optimizers_are_named():
    with pytest.raises(UserError, match="matches no parameter; .*encoder/conv1_1"):
        optim.trainable_mask(PARAMS, "head/")
    with pytest.raises(UserError, match="no regular expression"):
        optim.trainable_mask(PARAMS, "(")
    with pytest.raises(UserError, match="optimizer.name='lion'"):
        optim.make_optimizer("lion", learning_rate=1, trainable=PARAMS)


def make_step(*, trainable=".*", batch_norm=False, **kwargs):
    model = fcn.FCN(
        3,
        depth=11,
        width=0.0625,
        batch_norm=batch_norm,
        dropout=0.0,
        score_init="lecun_normal",
        std=(60.0,) * 3,
    )
    shapes = jax.eval_shape(
        lambda k: state_lib.init_variables(model, k), jax.random.key(0)
    )
    mask = optim.trainable_mask(shapes["params"], trainable)
    tx = optim.make_optimizer("sgd", learning_rate=0.1, trainable=mask)
    state = jax.jit(lambda k: state_lib.create(model, tx, k))(jax.random.key(0))
    kwargs = {"loss": losses.Loss()} | kwargs
    return state, step_lib.make_train_step(model, tx, trainable=mask, **kwargs)


def make_batch(seed=0, size=4):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (size, 33, 40), p=[0.3, 0.3, 0.3, 0.1])
    labels[0, :20] = 255  # Images with unequal numbers of labelled pixels.
    return {
        "image": rng.integers(0, 256, (size, 33, 40, 3), np.uint8),
        "size": np.array([[33, 40], [20, 40], [33, 9], [1, 1]], np.int32)[:size],
        "label": labels.astype(np.uint8),
    }


def test_accumulation_gives_the_step_of_the_whole_batch():
    results = []
    for accumulation_steps in (1, 2, 4):
        state, step = make_step(accumulation_steps=accumulation_steps)
        results.append(step(state, make_batch(), jax.random.key(1)))
    for state, scalars in results[1:]:
        np.testing.assert_allclose(scalars["loss"], results[0][1]["loss"], rtol=1e-5)
        for a, b in zip(
            jax.tree.leaves(state.params),
            jax.tree.leaves(results[0][0].params),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_frozen_encoder_stays_as_it_is_to_the_last_bit():
    state, step = make_step(trainable="decoder/", batch_norm=True)
    before = jax.device_get(state)
    for i in range(3):
        state, _ = step(state, make_batch(i), jax.random.key(1))
    after = jax.device_get(state)
    for name in ("params", "batch_stats"):
        a, b = getattr(before, name)["encoder"], getattr(after, name)["encoder"]
        jax.tree.map(np.testing.assert_array_equal, a, b)
    moved = jax.tree.map(
        lambda a, b: (a != b).any(), before.params["decoder"], after.params["decoder"]
    )
    assert jax.tree.all(moved)
    assert int(after.step) == 3


def test_a_batch_of_void_pixels_moves_nothing():
    state, step = make_step()
    before = jax.device_get(state.params)
    batch = make_batch() | {"label": np.full((4, 33, 40), 255, np.uint8)}
    state, scalars = step(state, batch, jax.random.key(1))
    assert float(scalars["loss"]) == 0
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state.params))


def test_all_finite():
    assert state_lib.all_finite({"a": jnp.ones(3), "b": jnp.zeros(2)})
    for bad in (np.nan, np.inf):
        assert not state_lib.all_finite({"a": jnp.ones(3), "b": jnp.array([1, bad])})


@pytest.mark.parametrize("devices", [1, 2])
def test_the_checksum_is_that_of_all_bits(devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)  # Chooses the form.
    arrays = {
        "a": np.array([[1.5, -2.0], [3e38, 0.0]], np.float32),
        "b": np.array([-1, 7], np.int32),
        "c": np.int32(5),
    }
    expected = 0
    for i, name in enumerate(sorted(arrays), start=1):
        data = arrays[name].tobytes()
        words = (data[k : k + 4] for k in range(0, len(data), 4))
        expected += i * sum(int.from_bytes(word, sys.byteorder) for word in words)
    tree = jax.tree.map(jnp.asarray, arrays)
    assert state_lib.checksum(tree) == expected % 2**32
