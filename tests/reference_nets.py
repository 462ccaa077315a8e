"""The four reference nets in PyTorch, as their prototxt files describe them.

Written from the layer tables of the reference (convolutions, pads, crop offsets, frozen
bilinear deconvolutions), not from this project's network. Needs PyTorch.
"""

import numpy as np
import torch

F = torch.nn.functional

NETS = ("fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce")
BGR_MEAN = (104.00699, 116.66877, 122.67892)
# Convolutions and their output channels, at full width; "p" is a 2x2 max pooling.
LAYERS = (
    *("conv1_1:64", "conv1_2:64", "p"),
    *("conv2_1:128", "conv2_2:128", "p"),
    *("conv3_1:256", "conv3_2:256", "conv3_3:256", "p"),
    *("conv4_1:512", "conv4_2:512", "conv4_3:512", "p"),
    *("conv5_1:512", "conv5_2:512", "conv5_3:512", "p"),
)


def bilinear(k):
    """``upsample_filt`` of the reference's surgery.py, by its definition."""
    factor = (k + 1) // 2
    centre = factor - 1 if k % 2 else factor - 0.5
    filt = np.zeros((k, k), np.float32)
    for y in range(k):
        for x in range(k):
            filt[y, x] = (1 - abs(y - centre) / factor) * (1 - abs(x - centre) / factor)
    return filt


def random_weights(net, width, num_classes=21, seed=0):
    """A state dict with the names and shapes of the published files; He-scaled."""
    rng = np.random.default_rng(seed)
    weights = {}

    def add(name, c_in, c_out, k, gain=2.0):
        scale = (gain / (c_in * k * k)) ** 0.5
        w = rng.normal(0, scale, (c_out, c_in, k, k))
        weights[f"{name}.weight"] = torch.tensor(w, dtype=torch.float32)
        b = rng.normal(0, 0.1, c_out)
        weights[f"{name}.bias"] = torch.tensor(b, dtype=torch.float32)
        return c_out

    def add_up(name, k):
        w = np.zeros((num_classes, num_classes, k, k), np.float32)
        w[range(num_classes), range(num_classes)] = bilinear(k)
        weights[f"{name}.weight"] = torch.tensor(w)

    channels, pools = 3, []
    for layer in LAYERS:
        if layer == "p":
            pools.append(channels)
            continue
        name, full = layer.split(":")
        channels = add(name, channels, int(int(full) * width), 3)
    channels = add("fc6", channels, int(4096 * width), 7)
    channels = add("fc7", channels, int(4096 * width), 1)
    add("score_fr", channels, num_classes, 1, 1.0)
    if net == "fcn32s":
        add_up("upscore", 64)
        return weights
    add("score_pool4", pools[3], num_classes, 1, 1.0)
    add_up("upscore2", 4)
    if net == "fcn16s":
        add_up("upscore16", 32)
        return weights
    add("score_pool3", pools[2], num_classes, 1, 1.0)
    add_up("upscore_pool4", 4)
    add_up("upscore8", 16)
    return weights


def forward(net, weights, bgr):
    """Logits [1,C,H,W] of a BGR image [1,3,H,W] with its mean subtracted."""

    def conv(x, name, pad=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 1, pad)

    def deconv(x, name, stride):
        return F.conv_transpose2d(x, weights[f"{name}.weight"], stride=stride)

    def crop(x, like, offset):
        h, w = like.shape[2:]
        assert offset + h <= x.shape[2] and offset + w <= x.shape[3]
        return x[:, :, offset : offset + h, offset : offset + w]

    x, pools = bgr, []
    for layer in LAYERS:
        if layer == "p":
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        else:
            name = layer.split(":")[0]
            x = F.relu(conv(x, name, 100 if name == "conv1_1" else 1))
    x = F.relu(conv(x, "fc6"))
    x = F.relu(conv(x, "fc7"))
    x = conv(x, "score_fr")
    if net == "fcn32s":
        return crop(deconv(x, "upscore", 32), bgr, 19)
    once = net == "fcn8s-atonce"
    x = deconv(x, "upscore2", 2)
    x = x + crop(conv(pools[3] * (0.01 if once else 1), "score_pool4"), x, 5)
    if net == "fcn16s":
        return crop(deconv(x, "upscore16", 16), bgr, 27)
    x = deconv(x, "upscore_pool4", 2)
    x = x + crop(conv(pools[2] * (0.0001 if once else 1), "score_pool3"), x, 9)
    return crop(deconv(x, "upscore8", 8), bgr, 31)


def from_rgb(image, dtype=torch.float32):
    """RGB uint8 [H,W,3] -> what the nets take, [1,3,H,W]."""
    bgr = torch.tensor(image[:, :, ::-1].copy()).to(dtype)
    bgr = bgr - torch.tensor(BGR_MEAN, dtype=dtype)
    return bgr.permute(2, 0, 1)[None]


def summed_loss(logits, label):
    """Caffe's SoftmaxWithLoss with ``normalize: false`` and ``ignore_label: 255``."""
    target = torch.tensor(label[None].astype(np.int64))
    return F.cross_entropy(logits, target, ignore_index=255, reduction="sum")
