"""Upsampling by bilinear transposed convolution, frozen or learned, or by resizing.

A transposed convolution with kernel ``2 * stride`` and stride ``stride`` maps ``n``
cells to ``(n + 1) * stride`` (Caffe's ``Deconvolution`` layer); a window of that is
kept. The window that starts at ``stride / 2`` aligns pixel centres
(``padding='SAME'`` in JAX); the reference nets' start elsewhere. None of the forms here
dilates its input: they are matrix products, up to 150 times as fast as XLA's
input-dilated convolutions (``benchmarks/upsampling.py``).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("bilinear", "learned", "resize")


def bilinear_filter(stride: int) -> np.ndarray:
    """The 1-D bilinear kernel, float32 [2 * stride] (reference: ``upsample_filt``)."""
    taps = np.arange(2 * stride, dtype=np.float32)
    return 1 - np.abs(taps - (stride - 0.5)) / stride


def bilinear_matrix(n: int, stride: int, offset: int, size: int) -> np.ndarray:
    """A window of the 1-D bilinear transposed convolution, as a matrix [size, n]."""
    # Where a network is exported for images of any size, sizes are no numbers.
    xp = np if isinstance(n + offset + size, int) else jnp
    out = xp.arange(offset, offset + size, dtype=np.float32)[:, None]
    centre = xp.arange(n, dtype=np.float32)[None, :] * stride + stride - 0.5
    return xp.maximum(0, 1 - xp.abs(out - centre) / stride)


def _along_rows_and_columns(x: jax.Array, rows, columns) -> jax.Array:
    """Applies [H,h] and [W,w] (or one pair an image, [B,H,h], [B,W,w]) to [B,h,w,C]."""
    rows_of, columns_of = (
        ("bHh" if rows.ndim == 3 else "Hh"),
        ("bWw" if columns.ndim == 3 else "Ww"),
    )
    # Accelerators would round float32 factors to half their digits otherwise.
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    x = product(f"{rows_of},bhwc->bHwc", rows.astype(x.dtype), x)
    return product(f"{columns_of},bHwc->bHWc", columns.astype(x.dtype), x)


def transposed_bilinear(
    x: jax.Array, stride: int, offset: int, canvas: tuple[int, int]
) -> jax.Array:
    """Frozen bilinear transposed convolution, a window of it.

    The kernel is separable, so two small matrix products compute it exactly. As in
    the reference, the outermost pixels blend with zeros.

    Args:
        x: [B,h,w,C].
        stride: pixels a cell.
        offset: where the window starts, in both directions; ``stride // 2`` aligns it.
        canvas: height and width H, W of the window.

    Returns:
        [B,H,W,C].
    """
    _, h, w, _ = x.shape
    return _along_rows_and_columns(
        x,
        jnp.asarray(bilinear_matrix(h, stride, offset, canvas[0])),
        jnp.asarray(bilinear_matrix(w, stride, offset, canvas[1])),
    )


def resize_matrix(size, out_size, n: int, out_n: int) -> jax.Array:
    """The 1-D bilinear resize of ``size`` cells to ``out_size`` as a matrix [out_n, n].

    The sizes may be traced scalars; ``n`` and ``out_n`` are the static canvases that
    hold them. Pixel centres are aligned and the border value continues outwards, as
    in ``jax.image.resize(..., antialias=False)``. Rows past ``out_size`` mean nothing.
    """
    out = jnp.arange(out_n, dtype=jnp.float32)
    position = (out + 0.5) * (size / jnp.float32(1) / out_size) - 0.5
    position = jnp.clip(position, 0, size - 1.0)[:, None]
    return jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(n, dtype=jnp.float32)))


def resize(x: jax.Array, sizes: jax.Array, out_sizes: jax.Array, canvas) -> jax.Array:
    """Resizes every image of a batch from its own size to another, bilinearly.

    Args:
        x: [B,h,w,C]; image ``b`` occupies its top-left ``sizes[b]`` cells.
        sizes: int [B,2], heights and widths in cells, at least 1.
        out_sizes: int [B,2], the sizes wanted.
        canvas: static (H, W) that holds every out size.

    Returns:
        [B,H,W,C]; what lies outside ``out_sizes[b]`` means nothing.
    """
    _, h, w, _ = x.shape
    matrices = jax.vmap(resize_matrix, in_axes=(0, 0, None, None))
    return _along_rows_and_columns(
        x,
        matrices(sizes[:, 0], out_sizes[:, 0], h, canvas[0]),
        matrices(sizes[:, 1], out_sizes[:, 1], w, canvas[1]),
    )


def sample(
    x: jax.Array,
    rows: tuple[jax.Array, jax.Array],
    columns: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Looks up a grid of positions in every map of a batch, bilinearly.

    ``resize`` for a part of the pixels, whose positions the caller has computed. A cell
    and a fraction tell them exactly, however large the image is.

    Args:
        x: [B,h,w,C].
        rows: cells, int [B,H], and fractions, float32 [B,H] in [0, 1), of the way to
            the next cell.
        columns: likewise, [B,W].

    Returns:
        [B,H,W,C].
    """

    def matrix(cells, fractions, n):
        ahead = jnp.arange(n) - cells[..., None]
        fractions = fractions[..., None]
        return jnp.where(ahead == 0, 1 - fractions, (ahead == 1) * fractions)

    _, h, w, _ = x.shape
    return _along_rows_and_columns(x, matrix(*rows, h), matrix(*columns, w))


def bilinear_kernel_init(_, shape, dtype=jnp.float32) -> jax.Array:
    """Bilinear weights [k,k,C_in,C_out] on the channel diagonal, as ``interp``."""
    k, _, c_in, c_out = shape
    filt = bilinear_filter(k // 2)
    return jnp.asarray(
        np.einsum("i,j,cd->ijcd", filt, filt, np.eye(c_in, c_out, dtype=np.float32)),
        dtype,
    )


def transposed_conv(
    x: jax.Array, kernel: jax.Array, offset: int, canvas: tuple[int, int]
) -> jax.Array:
    """Transposed convolution with kernel ``2s`` and stride ``s``, a window of it.

    Output block ``j`` of ``s`` pixels sees input cells ``j - 1`` and ``j`` only, so a
    2x2 convolution to ``s * s * C_out`` channels, here one matrix product of all 2x2
    windows, followed by a depth-to-space computes it without dilating the input.

    Args:
        x: [B,h,w,C_in].
        kernel: [2s,2s,C_in,C_out], entry ``t`` reaching output ``i * s + t`` from cell
            ``i`` (Caffe's and PyTorch's orientation).
        offset: see ``transposed_bilinear``.
        canvas: see ``transposed_bilinear``; within the ``(h + 1) * s`` by
            ``(w + 1) * s`` pixels that there are.

    Returns:
        [B,H,W,C_out].
    """
    b, h, w, _ = x.shape
    k, _, c_in, c_out = kernel.shape
    s = k // 2
    # [2 (this cell, cell before), s, 2, s, ...] -> before first, as the window runs.
    blocks = kernel.reshape(2, s, 2, s, c_in, c_out)[::-1, :, ::-1]
    blocks = blocks.transpose(0, 2, 4, 1, 3, 5).reshape(4 * c_in, s * s * c_out)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # One matrix product: XLA's gradient of the same as a convolution is slow on CPUs.
    windows = jnp.concatenate(
        [x[:, i : i + h + 1, j : j + w + 1] for i in (0, 1) for j in (0, 1)], axis=-1
    )
    y = windows @ blocks.astype(x.dtype)
    y = y.reshape(b, h + 1, w + 1, s, s, c_out).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(b, (h + 1) * s, (w + 1) * s, c_out)
    return y[:, offset : offset + canvas[0], offset : offset + canvas[1]]


class Upsample(nn.Module):
    """Upsamples class scores by ``stride`` with one of ``METHODS``.

    ``bilinear`` is the paper's frozen transposed convolution and ``resize`` an
    edge-replicating bilinear resize; neither has parameters. ``learned`` is a
    transposed convolution started from bilinear, with a dense kernel
    [2 stride, 2 stride, C, C].
    """

    stride: int
    method: str = "bilinear"

    @nn.compact
    def __call__(
        self, x: jax.Array, valid: jax.Array, offset: int, canvas: tuple[int, int]
    ) -> jax.Array:
        """Maps x [B,h,w,C], zero where valid [B,h,w,1] is 0, to [B,*canvas,C]."""
        window = offset, canvas
        if self.method == "learned":
            c = x.shape[-1]
            shape = (2 * self.stride, 2 * self.stride, c, c)
            kernel = self.param("kernel", bilinear_kernel_init, shape)
            return transposed_conv(x, kernel, *window)
        y = transposed_bilinear(x, self.stride, *window)
        if self.method == "resize":
            # A resize is the transposed convolution with each output divided by the
            # weight it got from inside the image; 1 except near the border.
            weight = transposed_bilinear(
                valid.astype(jnp.float32), self.stride, *window
            )
            y = y / jnp.maximum(weight, 1e-6).astype(y.dtype)
        return y
