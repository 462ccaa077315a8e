"""Convolution in the form that the backend computes fastest, chosen here alone.

Accelerators have XLA's own convolution throughout. On CPUs it loses to other forms of
the same sums in three places; ``docs/performance.md`` has the figures.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax.models import winograd


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


@jax.custom_vjp
def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A SAME 3x3 convolution, whose output and gradients each have their own form."""
    native = partial(_native, padding="SAME")
    form = winograd.conv3x3 if _output_by_winograd(x, kernel) else native
    return _on_cpu(form, native, x, kernel)


def _conv3x3_forward(x, kernel):
    # Not by Winograd: through all the layers and back, its rounding would move the
    # gradient of conv1_1 by 2e-3 of its largest number; XLA's own moves it by 1e-3.
    return _native(x, kernel, "SAME"), (x, kernel)


def _conv3x3_backward(saved, gradient):
    x, kernel = saved

    def native(x, kernel, gradient):
        return jax.vjp(partial(_native, padding="SAME"), x, kernel)[1](gradient)

    def winograds(x, kernel, gradient):
        by_input = native(x, kernel, gradient)[0]
        return by_input, winograd.kernel_gradient(x, gradient)

    form = winograds if _gradient_by_winograd(x, kernel) else native
    return _on_cpu(form, native, x, kernel, gradient)


_conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


def _on_cpu(cpu: Callable, default: Callable, *args):
    """Calls ``cpu`` where the program is compiled for a CPU, elsewhere ``default``.

    On CPUs in float32 at least, as XLA does there anyway with products of bfloat16.
    """
    if cpu is default:
        return default(*args)

    def in_float32(*args):
        dtype = jnp.promote_types(args[0].dtype, jnp.float32)
        results = cpu(*(x.astype(dtype) for x in args))
        return jax.tree.map(lambda x: x.astype(args[0].dtype), results)

    return jax.lax.platform_dependent(*args, cpu=in_float32, default=default)


def _output_by_winograd(x, kernel) -> bool:
    """Whether ``winograd.conv3x3`` beats XLA's own on a CPU: many channels, pixels."""
    return min(kernel.shape[2:]) >= 128 and _pixels(x) >= 2000


def _gradient_by_winograd(x, kernel) -> bool:
    """Whether ``winograd.kernel_gradient`` does: fewer channels and pixels are enough.

    With very many pixels, fewer channels still.
    Not on several devices: sums over the batch would cross them for each row of tiles.
    """
    many = min(kernel.shape[2:]) >= 32 and _pixels(x) >= 1000
    vast = kernel.shape[2] >= 16 and x.shape[1] * x.shape[2] >= 20_000
    return (many or vast) and jax.device_count() == 1


def _pixels(x) -> int:
    return x.shape[0] * x.shape[1] * x.shape[2]


def conv2d(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """Stride-1 convolution of x [B,h,w,C_in] by an odd kernel [k,k,C_in,C_out].

    The padding is ``SAME`` (the output has x's size) or ``VALID`` (``k - 1`` less).
    """
    sizes_are_numbers = all(isinstance(n, int) for n in x.shape)
    if kernel.shape[0] == 3 and padding == "SAME" and sizes_are_numbers:
        return _conv3x3(x, kernel)
    native = partial(_native, padding=padding)
    patches = native if kernel.shape[0] == 3 else partial(_patches, padding=padding)
    return _on_cpu(patches, native, x, kernel)


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
