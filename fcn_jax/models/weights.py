"""What a network can start from."""

import dataclasses

import numpy as np

# RGB, for pixels of 0-255: what a network without other weights works with.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters from elsewhere, under our names and in our layouts.

    Attributes:
        description: what they are of, for messages.
        depth: of the VGG.
        batch_norm: whether it has batch normalisation.
        params: float32 by names such as ``encoder/conv1_1/kernel``; kernels are HWIO.
            ``fc6`` and ``fc7`` may be missing, as may the decoder.
        batch_stats: float32 by names such as ``encoder/bn1_1/mean``.
        mean, std: RGB, of pixels of 0-255, that the encoder wants.
        geometry: that the decoder was trained in; None without one.
        skip_scales: of pool4 and pool3, where the weights tell; else None.
        class_names: of the decoder's classes, where the weights tell; else None.
        trained_on: data sets and splits that a decoder learned from, such as
            ``voc/sbd_train``, where that is known.
        unused: layers in the file that an FCN has no place for.
    """

    description: str
    depth: int
    batch_norm: bool
    params: dict[str, np.ndarray]
    batch_stats: dict[str, np.ndarray]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    geometry: str | None = None
    skip_scales: tuple[float, float] | None = None
    class_names: tuple[str, ...] | None = None
    trained_on: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
