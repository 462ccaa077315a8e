"""The same network in PyTorch, as its users write it: the other side of the benchmarks.

FCN-8s on VGG-16 of ``nn.Conv2d``, ``nn.MaxPool2d(ceil_mode=True)`` and frozen dense
``nn.ConvTranspose2d``, in both geometries. Not a part of the package; needs PyTorch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fcn_jax.models import fcn, upsampling, vgg


class FCN8s(nn.Module):
    """VGG-16 at full width and the decoder at stride 8."""

    def __init__(self, num_classes: int, geometry: str):
        """``geometry`` is ``same`` or ``caffe``, see ``fcn.FCN``."""
        super().__init__()
        self.caffe = geometry == "caffe"
        channels = 3
        for block, convolutions in enumerate(vgg.BLOCKS[16], 1):
            layers = []
            for i in range(convolutions):
                width = vgg.CHANNELS[block - 1]
                first = block == 1 and i == 0 and self.caffe
                layers += [
                    nn.Conv2d(channels, width, 3, padding=100 if first else 1),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            self.add_module(f"block{block}", nn.Sequential(*layers))
        self.head = nn.Sequential(
            nn.Conv2d(channels, 4096, 7, padding=0 if self.caffe else 3),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Conv2d(4096, 4096, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(),
        )
        self.score_fr = nn.Conv2d(4096, num_classes, 1)
        self.score_pool4 = nn.Conv2d(512, num_classes, 1)
        self.score_pool3 = nn.Conv2d(256, num_classes, 1)
        self.upscore2 = _frozen_bilinear(num_classes, 2)
        self.upscore_pool4 = _frozen_bilinear(num_classes, 2)
        self.upscore8 = _frozen_bilinear(num_classes, 8)

    def forward(self, image):
        """Normalised images [B,3,H,W] -> logits [B,num_classes,H,W]."""
        x = self.block2(self.block1(image))
        pool3 = self.block3(x)
        pool4 = self.block4(pool3)
        x = self.score_fr(self.head(self.block5(pool4)))
        starts = (0, 5, 0, 9, 31) if self.caffe else (1, 0, 1, 0, 4)
        for up, score, feature, start, skip_start in (
            (self.upscore2, self.score_pool4, pool4, starts[0], starts[1]),
            (self.upscore_pool4, self.score_pool3, pool3, starts[2], starts[3]),
        ):
            x, y = up(x), score(feature)
            if self.caffe:
                y = _window(y, skip_start, x.shape)
            else:
                x = _window(x, start, y.shape)
            x = x + y
        return _window(self.upscore8(x), starts[4], image.shape)

    def load_jax(self, params) -> None:
        """Takes the parameters of a ``fcn.FCN`` of the same shape."""
        convolutions = {
            f"encoder/conv{block}_{i + 1}": getattr(self, f"block{block}")[2 * i]
            for block, count in enumerate(vgg.BLOCKS[16], 1)
            for i in range(count)
        }
        convolutions |= {"encoder/fc6": self.head[0], "encoder/fc7": self.head[3]}
        scores = ("score_fr", "score_pool4", "score_pool3")
        convolutions |= {f"decoder/{name}": getattr(self, name) for name in scores}
        with torch.no_grad():
            for name, layer in convolutions.items():
                part, leaf = name.split("/")
                kernel = np.asarray(params[part][leaf]["kernel"]).transpose(3, 2, 0, 1)
                layer.weight.copy_(torch.tensor(kernel.copy()))
                layer.bias.copy_(torch.tensor(np.array(params[part][leaf]["bias"])))


def normaliser(model: fcn.FCN, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function of images uint8 [B,3,H,W], to what the network takes."""
    mean, std = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (model.mean, model.std)
    )
    return lambda images: (images.float() - mean) / std


def _frozen_bilinear(channels: int, stride: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(channels, channels, 2 * stride, stride, bias=False)
    layer.weight.requires_grad_(False)
    filt = torch.tensor(upsampling.bilinear_filter(stride))
    layer.weight.zero_()
    for channel in range(channels):
        layer.weight[channel, channel] = filt[:, None] * filt
    return layer


def _window(x: torch.Tensor, start: int, shape) -> torch.Tensor:
    height, width = shape[2:]
    return x[:, :, start : start + height, start : start + width]
