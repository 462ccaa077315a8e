"""The VGG encoder, fully convolutional: conv1_1 .. pool5, fc6 and fc7.

Simonyan & Zisserman, ICLR 2015, tables 1 (A, B, D, E = VGG-11/13/16/19), with the
first two classifier layers turned into a 7x7 and a 1x1 convolution as in section 3.1
of Long, Shelhamer & Darrell (CVPR 2015).
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax.models import convolution, pooling

# Convolutions in each of the five blocks, by depth.
BLOCKS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
HEAD_CHANNELS = 4096  # Of fc6 and fc7.


def halve(sizes: jax.Array) -> jax.Array:
    """Sizes after a 2x2, stride 2, ceil-mode pooling."""
    return (sizes + 1) // 2


def valid_mask(sizes: jax.Array, height: int, width: int) -> jax.Array:
    """1 inside each image's own extent: int [B,2] -> bool [B,height,width,1]."""
    rows = jnp.arange(height)[None, :] < sizes[:, :1]
    columns = jnp.arange(width)[None, :] < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


class Feature(NamedTuple):
    """A layer's output for a batch of images, each with an extent of its own."""

    x: jax.Array  # [B,h,w,C], zero outside the extents.
    sizes: jax.Array  # int [B,2], heights and widths of the extents.


class VGG(nn.Module):
    """VGG with fc6 and fc7 as convolutions.

    Every layer's output is set to zero outside the images' own extents, just what
    the next layer's padding would hold if each image came alone; so the features of
    an image do not depend on the canvas that it lies in, nor on its neighbours.

    Attributes:
        depth: 11, 13, 16 or 19.
        width: multiplies every channel count (at least 1 channel each).
        batch_norm: batch normalisation after every convolution of the five blocks;
            its statistics count pixels inside the images only.
        fc6_padding: ``SAME``, which keeps pool5's size, or ``VALID``, the reference's,
            6 cells less.
        dropout: rate of the element-wise dropout after fc6 and fc7, in [0, 1).
        remat: recompute each block in the backward pass instead of keeping its
            activations: less memory, more time.
        dtype: of activations; parameters stay float32.
    """

    depth: int = 16
    width: float = 1.0
    batch_norm: bool = False
    fc6_padding: str = "SAME"
    dropout: float = 0.5
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, sizes: jax.Array, *, train: bool, update_batch_norm: bool
    ) -> dict[str, Feature]:
        """Encodes normalised images.

        Args:
            x: float [B,H,W,3], zero outside the images.
            sizes: int [B,2], each image's height and width.
            train: whether to drop units.
            update_batch_norm: whether batch normalisation uses and records this batch's
                statistics instead of the recorded ones.

        Returns:
            ``pool3`` (stride 8), ``pool4`` (16) and ``fc7`` (32).
        """
        run_block = partial(VGG._block, update_batch_norm=update_batch_norm)
        features = {}
        for block in range(1, 6):
            run = partial(run_block, block=block)
            run = nn.remat(run) if self.remat else run
            x = run(self, x, valid_mask(sizes, *x.shape[1:3]))
            sizes = halve(sizes)
            features[f"pool{block}"] = Feature(x, sizes)

        for name, kernel_size, padding in (
            ("fc6", 7, self.fc6_padding),
            ("fc7", 1, "SAME"),
        ):
            x = self._conv(HEAD_CHANNELS, kernel_size, name, padding)(x)
            sizes = sizes - (kernel_size - 1 if padding == "VALID" else 0)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
            x = jnp.where(valid_mask(sizes, *x.shape[1:3]), x, 0)
        return {
            "pool3": features["pool3"],
            "pool4": features["pool4"],
            "fc7": Feature(x, sizes),
        }

    def _block(self, x, valid, *, block: int, update_batch_norm: bool) -> jax.Array:
        """Convolutions and the pooling after them: [B,h,w,C] -> half the size."""
        for i in range(1, BLOCKS[self.depth][block - 1] + 1):
            x = self._conv(CHANNELS[block - 1], 3, f"conv{block}_{i}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not update_batch_norm,
                    momentum=0.9,
                    dtype=self.dtype,
                    name=f"bn{block}_{i}",
                )(x, mask=valid)
            x = jnp.where(valid, nn.relu(x), 0)
        # Ceil mode. The zeros outside never win against ReLU's outputs.
        return pooling.max_pool(x)

    def _conv(self, channels, kernel_size, name, padding="SAME") -> nn.Module:
        channels = max(1, round(channels * self.width))
        return convolution.Conv(
            channels, kernel_size, padding, dtype=self.dtype, name=name
        )
