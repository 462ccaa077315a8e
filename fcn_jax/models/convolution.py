"""Convolution in the form that the backend computes fastest."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

# Kernels at least this wide go through patches on a CPU. Measured on fc6 (7x7,
# 192 -> 1536, on 4 x 6 x 8 cells, 2 cores, jax 0.10.2): 29 + 43 + 58 ms for output,
# kernel and input gradient, against 4592 + 63 + 1130 ms of XLA's own convolution;
# for 3x3 kernels XLA's own is the faster one at every VGG size.
PATCHES_FROM = 5


def _native(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patches(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """The same as one matrix product of all windows, for odd square kernels."""
    k, _, c_in, c_out = kernel.shape
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    h, w = x.shape[1] - k + 1, x.shape[2] - k + 1
    windows = jnp.concatenate(
        [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)], axis=-1
    )
    return windows @ kernel.reshape(k * k * c_in, c_out)


def conv2d(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """Stride-1 convolution of x [B,h,w,C_in] by an odd kernel [k,k,C_in,C_out].

    The padding is ``SAME`` (the output has x's size) or ``VALID`` (``k - 1`` less).
    """
    native = partial(_native, padding=padding)
    if kernel.shape[0] < PATCHES_FROM:
        return native(x, kernel)
    return jax.lax.platform_dependent(
        x, kernel, cpu=partial(_patches, padding=padding), default=native
    )


class Conv(nn.Module):
    """A stride-1 convolution with bias; ``nn.Conv``'s parameters and meaning."""

    features: int
    kernel_size: int
    padding: str = "SAME"
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B,h,w,C] to [B,h,w,features], for VALID to less: see ``conv2d``."""
        k = self.kernel_size
        kernel = self.param(
            "kernel", self.kernel_init, (k, k, x.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv2d(x, kernel, self.padding) + bias
