"""The forms of convolution and pooling, against loops in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.models import convolution, pooling, winograd

SIZES = ((1, 1, 1), (2, 5, 7), (1, 4, 3), (3, 9, 2))


def loops(x, kernel):
    """A SAME 3x3 convolution in float64, window by window."""
    b, h, w, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((b, h, w, kernel.shape[-1]))
    for row in range(h):
        for column in range(w):
            window = padded[:, row : row + 3, column : column + 3]
            y[:, row, column] = np.tensordot(window, kernel, 3)
    return y


def kernel_gradient_by_loops(x, gradient):
    """Of ``sum(gradient * loops(x, kernel))`` with respect to the kernel."""
    _, h, w, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.array(
        [
            [
                np.einsum("bhwc,bhwd->cd", padded[:, i : i + h, j : j + w], gradient)
                for j in range(3)
            ]
            for i in range(3)
        ]
    )


@pytest.mark.parametrize("size", SIZES)
def test_winograd_gives_what_loops_give(size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*size, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 5, 4)).astype(np.float32)
    gradient = rng.normal(size=(*size, 4)).astype(np.float32)
    np.testing.assert_allclose(
        jax.jit(winograd.conv3x3)(x, kernel), loops(x, kernel), rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(
        jax.jit(winograd.kernel_gradient)(x, gradient),
        kernel_gradient_by_loops(x, gradient),
        rtol=0,
        atol=1e-4,
    )


def test_output_and_gradients_where_winograd_is_chosen_equal_those_of_xla():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(1, 43, 50, 128)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 128, 128)) / 34, jnp.float32)
    assert convolution._output_by_winograd(x, kernel)
    native = partial(convolution._native, padding="SAME")

    def output_and_gradients(form):
        y, backward = jax.vjp(form, x, kernel)
        return form(x, kernel), y, *backward(jnp.cos(y))

    pairs = zip(
        jax.jit(partial(output_and_gradients, convolution.conv2d))(),
        jax.jit(partial(output_and_gradients, native))(),
        strict=True,
    )
    for actual, expected in pairs:
        largest = float(jnp.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * largest)


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(1, 46, 46, 128)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 128, 128)) / 34, jnp.bfloat16)
    y = jax.jit(convolution.conv2d)(x, kernel)
    assert y.dtype == jnp.bfloat16
    expected = loops(np.asarray(x, np.float32), np.asarray(kernel, np.float32))
    rounding = np.abs(expected) / 256 + 1e-4
    assert (np.abs(np.asarray(y, np.float64) - expected) <= rounding).all()


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 6), (4, 7), (7, 3)])
def test_pooling_takes_the_largest_and_gives_the_gradient_to_the_first(size):
    rng = np.random.default_rng(3)
    h, w = size
    # Few values, so that many are equal.
    x = rng.integers(-2, 2, (2, h, w, 3)).astype(np.float32)
    gradient = rng.normal(size=(2, -(-h // 2), -(-w // 2), 3)).astype(np.float32)
    expected, by_x = np.zeros_like(gradient), np.zeros_like(x)
    for b, row, column, c in np.ndindex(gradient.shape):
        window = x[b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, c]
        expected[b, row, column, c] = window.max()
        i, j = np.unravel_index(window.argmax(), window.shape)
        by_x[b, 2 * row + i, 2 * column + j, c] = gradient[b, row, column, c]
    for form in (pooling.max_pool, pooling._native):
        y, backward = jax.vjp(form, jnp.asarray(x))
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(backward(jnp.asarray(gradient))[0], by_x)
