"""Convolution in the form that the backend computes fastest."""

import flax.linen as nn
import jax
import jax.numpy as jnp

# Kernels at least this wide go through patches on a CPU. Measured on fc6 (7x7,
# 192 -> 1536, on 4 x 6 x 8 cells, 2 cores, jax 0.10.2): 29 + 43 + 58 ms for output,
# kernel and input gradient, against 4592 + 63 + 1130 ms of XLA's own convolution;
# for 3x3 kernels XLA's own is the faster one at every VGG size.
PATCHES_FROM = 5


def _native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as one matrix product of all windows, for odd square kernels."""
    b, h, w, _ = x.shape
    k, _, c_in, c_out = kernel.shape
    x = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    windows = jnp.concatenate(
        [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)], axis=-1
    )
    return (
        windows.reshape(b * h * w, -1) @ kernel.reshape(k * k * c_in, c_out)
    ).reshape(b, h, w, c_out)


def conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride-1 SAME convolution of x [B,h,w,C_in] by an odd kernel [k,k,C_in,C_out]."""
    if kernel.shape[0] < PATCHES_FROM:
        return _native(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=_patches, default=_native)


class Conv(nn.Module):
    """A stride-1 SAME convolution with bias; ``nn.Conv``'s parameters and meaning."""

    features: int
    kernel_size: int
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B,h,w,C] to [B,h,w,features]."""
        k = self.kernel_size
        kernel = self.param(
            "kernel", self.kernel_init, (k, k, x.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv2d(x, kernel) + bias
