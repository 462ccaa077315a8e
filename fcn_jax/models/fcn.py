"""FCN-32s, FCN-16s and FCN-8s on a VGG encoder.

Long, Shelhamer & Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015 / TPAMI 2017, section 4; layers are named as in the reference nets.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fcn_jax.errors import UserError
from fcn_jax.models import convolution, upsampling, vgg

STRIDES = (32, 16, 8)
GEOMETRIES = ("same", "caffe")
# Of the reference nets ("caffe"): conv1_1 pads by 100, of which 1 is the convolution's
# own; windows start at these rows and columns of pool4, pool3 and the last upsampling.
BORDER = 99
SKIP_OFFSETS = {16: 5, 8: 9}
LAST_OFFSETS = {32: 19, 16: 27, 8: 31}
SCORE_INITS = {  # Of the layers that score classes.
    "zeros": nn.initializers.zeros,  # The paper's.
    "lecun_normal": nn.initializers.lecun_normal(),
}


def upsampling_layers(stride: int) -> tuple[str, ...]:
    """The names of the decoder's upsampling layers, in order."""
    return {
        32: ("upscore",),
        16: ("upscore2", "upscore16"),
        8: ("upscore2", "upscore_pool4", "upscore8"),
    }[stride]


class Decoder(nn.Module):
    """Scores classes at strides 32, 16 and 8, fuses by sums, upsamples to pixels.

    The attributes are those of ``FCN``.
    """

    num_classes: int
    stride: int
    upsampling: str
    score_init: str
    geometry: str
    skip_scales: tuple[float, float]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, features: dict[str, vgg.Feature], canvas) -> jax.Array:
        """Features by name -> scores [B,*canvas,C]."""

        def score(name, feature, scale=1.0):
            x, sizes = feature
            x = convolution.Conv(
                self.num_classes,
                1,
                kernel_init=SCORE_INITS[self.score_init],
                dtype=self.dtype,
                name=name,
            )(x if scale == 1 else x * scale)
            return masked(x, sizes)

        def masked(x, sizes):
            return jnp.where(vgg.valid_mask(sizes, *x.shape[1:3]), x, 0)

        def upsample(name, x, sizes, stride, offset, canvas):
            valid = vgg.valid_mask(sizes, *x.shape[1:3])
            layer = upsampling.Upsample(stride, self.upsampling, name=name)
            return layer(x, valid, offset, canvas)

        same = self.geometry == "same"
        x, at = score("score_fr", features["fc7"]), 32
        sizes = features["fc7"].sizes
        for name, skip, layer, stride, scale in (
            ("upscore2", "score_pool4", "pool4", 16, self.skip_scales[0]),
            ("upscore_pool4", "score_pool3", "pool3", 8, self.skip_scales[1]),
        ):
            if self.stride <= stride:
                y = score(skip, features[layer], scale)
                if same:  # Ceil-mode sizes: the skip's, the surplus is at the end.
                    x = upsample(name, x, sizes, 2, 1, y.shape[1:3])
                    sizes = features[layer].sizes
                else:  # All of the upsampled, and the part of the skip that meets it.
                    height, width = (2 * n + 2 for n in x.shape[1:3])
                    x = upsample(name, x, sizes, 2, 0, (height, width))
                    sizes = 2 * sizes + 2
                    start = SKIP_OFFSETS[stride]
                    y = y[:, start : start + height, start : start + width]
                x, at = masked(x + y, sizes), stride
        # The last upsampling feeds softmax and argmax: in float32 at least.
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        name = upsampling_layers(self.stride)[-1]
        offset = at // 2 if same else LAST_OFFSETS[at]
        return upsample(name, x, sizes, at, offset, canvas)


class FCN(nn.Module):
    """Fully convolutional network: images of any size -> class scores of every pixel.

    Attributes:
        num_classes: number of classes, background included.
        stride: 32, 16 or 8: FCN-32s, FCN-16s (fuses pool4) or FCN-8s (and pool3).
        depth, width, batch_norm, dropout, remat: of the encoder, see ``vgg.VGG``.
        upsampling: ``bilinear`` (frozen), ``learned`` or ``resize``.
        score_init: a key of ``SCORE_INITS``.
        geometry: ``same``: all sizes are divided rounding up, and cells lie centred on
            their pixels. ``caffe``: that of the reference nets, which published FCN
            weights need: a border of zeros, fc6 without padding, windows where their
            ``Crop`` layers have them.
        skip_scales: factors on pool4 and pool3 before they are scored; 0.01 and 0.0001
            in the reference FCN-8s that is trained at once, else 1.
        mean, std: RGB, in units of the 0-255 input; travel with the checkpoint.
        dtype: of activations; parameters stay float32, the logits are float32 (of
            float64, for tests with ``jax_enable_x64``, float64).
    """

    num_classes: int
    stride: int = 8
    depth: int = 16
    width: float = 1.0
    batch_norm: bool = False
    dropout: float = 0.5
    upsampling: str = "bilinear"
    score_init: str = "zeros"
    geometry: str = "same"
    skip_scales: tuple[float, float] = (1.0, 1.0)
    mean: tuple[float, float, float] = (122.67892, 116.66877, 104.00699)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        sizes: jax.Array | None = None,
        *,
        train: bool = False,
        update_batch_norm: bool | None = None,
    ) -> jax.Array:
        """Scores every pixel.

        Args:
            images: RGB [B,H,W,3], 0-255, integer or float; image ``b`` occupies its
                top-left ``sizes[b]`` pixels, whatever lies outside is ignored.
            sizes: int [B,2], heights and widths >= 1; None: all fill the canvas.
            train: whether to drop units and, unless ``update_batch_norm`` says
                otherwise, to use and record this batch's statistics.
            update_batch_norm: see ``vgg.VGG``; default ``train``.

        Returns:
            Logits, float32 [B,H,W,num_classes]. Those inside an image equal the logits
            of that image alone; those outside mean nothing.
        """
        batch, *canvas, _ = images.shape
        if sizes is None:
            sizes = jnp.broadcast_to(jnp.asarray(canvas, jnp.int32), (batch, 2))
        update_batch_norm = train if update_batch_norm is None else update_batch_norm

        x = images.astype(jnp.promote_types(self.dtype, jnp.float32))
        x = (x - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        x = jnp.where(vgg.valid_mask(sizes, *canvas), x, 0).astype(self.dtype)
        caffe = self.geometry == "caffe"
        if caffe:
            x = jnp.pad(x, ((0, 0), (BORDER, BORDER), (BORDER, BORDER), (0, 0)))
            sizes = sizes + 2 * BORDER
        features = vgg.VGG(
            self.depth,
            self.width,
            self.batch_norm,
            "VALID" if caffe else "SAME",
            self.dropout,
            self.remat,
            self.dtype,
            name="encoder",
        )(x, sizes, train=train, update_batch_norm=update_batch_norm)
        return Decoder(
            self.num_classes,
            self.stride,
            self.upsampling,
            self.score_init,
            self.geometry,
            self.skip_scales,
            self.dtype,
            name="decoder",
        )(features, tuple(canvas))


def create(num_classes: int, *, dtype: str = "auto", **fields) -> FCN:
    """An FCN from a config's plain values, checked.

    Args:
        num_classes: at least 2.
        dtype: ``float32``, ``bfloat16`` or ``auto``: bfloat16 on accelerators.
        **fields: attributes of ``FCN``; sequences may be lists.

    Raises:
        UserError: a value that the network cannot have.
    """
    choices = {
        "stride": STRIDES,
        "depth": tuple(vgg.BLOCKS),
        "upsampling": upsampling.METHODS,
        "score_init": tuple(SCORE_INITS),
        "geometry": GEOMETRIES,
    }
    for name, allowed in choices.items():
        if name in fields and fields[name] not in allowed:
            raise UserError(
                f"model.{name}={fields[name]!r} is not known; use one of {allowed}."
            )
    if not 0 <= fields.get("dropout", 0) < 1:
        raise UserError(
            f"model.dropout={fields['dropout']} is not a rate; use 0 <= dropout < 1."
        )
    if not fields.get("width", 1) > 0:
        raise UserError(f"model.width={fields['width']} must be greater than 0.")
    if (fields.get("geometry"), fields.get("upsampling")) == ("caffe", "resize"):
        raise UserError(
            "model.upsampling='resize' has no meaning with model.geometry='caffe', "
            "whose cells are not centred on pixels; use bilinear or learned."
        )
    if "skip_scales" in fields:
        scales = fields["skip_scales"] = tuple(fields["skip_scales"])
        if len(scales) != 2:
            raise UserError(
                f"model.skip_scales={scales} must be two numbers, for pool4 and pool3."
            )
    for name in ("mean", "std"):
        if name in fields:
            fields[name] = _rgb(name, fields[name])
    dtypes = ("auto", "float32", "bfloat16")
    if dtype not in dtypes:
        raise UserError(f"model.dtype={dtype!r} is not known; use one of {dtypes}.")
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return FCN(num_classes=num_classes, dtype=jnp.dtype(dtype), **fields)


def _rgb(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if len(values) != 3 or (name == "std" and min(values) <= 0):
        raise UserError(
            f"model.{name}={tuple(values)} must be three numbers, for red, green and "
            f"blue in 0-255{', greater than 0' if name == 'std' else ''}."
        )
    return tuple(float(v) for v in values)
