"""3x3 convolutions by Winograd's minimal filtering, along the rows: for CPUs.

Lavin & Gray, "Fast Algorithms for Convolutional Networks", CVPR 2016, section 4.1, with
F(4, 3): four output rows come from six input rows by six 1x3 convolutions, instead of
the twelve that a 3x3 kernel stands for. Along the columns nothing changes, so that
XLA's own 1x3 convolution does the work.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

OUT, IN = 4, 6  # Rows of the output that IN rows of the input make.
# Rows of the input, of the kernel, and of the products, as Lavin & Gray's B^T, G, A^T.
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """SAME convolution of x [B,h,w,C_in] by a kernel [3,3,C_in,C_out].

    Half the multiplications; in float32 the largest error grows from 5e-7 of the
    largest output to 4e-6, which is too much to be compounded through all layers in
    training, and of no consequence to the classes.
    """
    b, h, w, _ = x.shape
    tiles = -(-h // OUT)
    kernels = jnp.einsum(
        "pi,ijcd->pjcd", _KERNEL.astype(x.dtype), kernel, precision="highest"
    )
    x = jnp.pad(x, ((0, 0), (1, 1 + tiles * OUT - h), (0, 0), (0, 0)))
    rows = [x[:, i : i + OUT * (tiles - 1) + 1 : OUT] for i in range(IN)]
    products = [
        jax.lax.conv_general_dilated(
            _combine(coefficients, rows),
            kernel[None],
            (1, 1),
            ((0, 0), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for coefficients, kernel in zip(_INPUT, kernels, strict=True)
    ]
    y = jnp.stack([_combine(row, products) for row in _OUTPUT], axis=2)
    return y.reshape(b, tiles * OUT, w, -1)[:, :h]


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient with respect to the kernel, of a SAME 3x3 convolution.

    Worked through four rows at a time, so that what is in work stays in the caches, and
    in matrix products alone.

    Args:
        x: the input, [B,h,w,C_in].
        gradient: with respect to the output, [B,h,w,C_out].

    Returns:
        [3,3,C_in,C_out].
    """
    h, (c_in, c_out) = x.shape[1], (x.shape[-1], gradient.shape[-1])
    tiles = -(-h // OUT)
    below = tiles * OUT - h
    x = jnp.pad(x, ((0, 0), (1, 1 + below), (1, 1), (0, 0)))
    # As wide as x, with zeros: then a shift by a column is one by a row of the matrix.
    gradient = jnp.pad(gradient, ((0, 0), (0, below), (0, 2), (0, 0)))

    def add(tile, sums):
        rows = jax.lax.dynamic_slice_in_dim(x, tile * OUT, IN, 1)
        out_rows = jax.lax.dynamic_slice_in_dim(gradient, tile * OUT, OUT, 1)
        rows = [rows[:, i].reshape(-1, c_in) for i in range(IN)]
        out_rows = [out_rows[:, i].reshape(-1, c_out) for i in range(OUT)]
        for p in range(IN):
            v = _combine(_INPUT[p], rows)
            d = _combine(_OUTPUT[:, p], out_rows)[:-2]
            for j in range(3):
                product = jax.lax.dot_general(
                    v[j : j + len(d)], d, (((0,), (0,)), ((), ()))
                )
                sums[p][j] += product
        return sums

    zeros = [[jnp.zeros((c_in, c_out), x.dtype) for _ in range(3)] for _ in range(IN)]
    sums = jax.lax.fori_loop(0, tiles, add, zeros)
    sums = jnp.stack([jnp.stack(columns) for columns in sums])
    return jnp.einsum(
        "pi,pjcd->ijcd", _KERNEL.astype(x.dtype), sums, precision="highest"
    )


def _combine(coefficients: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    """A sum of multiples, without the zeros."""
    terms = (
        array if c == 1 else array * np.asarray(c, array.dtype)
        for c, array in zip(coefficients, arrays, strict=True)
        if c
    )
    return sum(terms)
