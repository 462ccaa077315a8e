"""Weight files of every publisher with random numbers, and what they should become.

The names and layer orders are written out from the publishers' own code and files, not
taken from the project's tables.
"""

import struct

import h5py
import numpy as np

# Places of convolutions in torchvision's and timm's ``features``.
PLACES = {
    (11, False): (0, 3, 6, 8, 11, 13, 16, 18),
    (13, False): (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    (16, False): (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    (19, False): (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
    (11, True): (0, 4, 8, 11, 15, 18, 22, 25),
    (13, True): (0, 3, 7, 10, 14, 17, 21, 24, 28, 31),
    (16, True): (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
    (19, True): (0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49),
}
CONVS = {
    11: "1_1 2_1 3_1 3_2 4_1 4_2 5_1 5_2",
    13: "1_1 1_2 2_1 2_2 3_1 3_2 4_1 4_2 5_1 5_2",
    16: "1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3 5_1 5_2 5_3",
    19: "1_1 1_2 2_1 2_2 3_1 3_2 3_3 3_4 4_1 4_2 4_3 4_4 5_1 5_2 5_3 5_4",
}
# RGB mean and standard deviation that the publishers give, for 0-255.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
VGG = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
FCN = ((122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0))
CHANNELS = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512}


def vgg(depth=16, width=1 / 32, *, batch_norm=False, seed=0):
    """Random layers by name: weight OIHW, bias; He-scaled so that signals live."""
    rng = np.random.default_rng(seed)
    layers, c_in = {}, 3

    def numbers(*shape, scale=0.1):
        return rng.normal(0, scale, shape).astype(np.float32)

    for name in CONVS[depth].split():
        c = int(CHANNELS[name[0]] * width)
        weight = numbers(c, c_in, 3, 3, scale=(2 / (9 * c_in)) ** 0.5)
        layers[f"conv{name}"] = {"weight": weight, "bias": numbers(c)}
        if batch_norm:
            layers[f"bn{name}"] = {
                "weight": 1 + numbers(c),
                "bias": numbers(c),
                "running_mean": numbers(c),
                "running_var": 1 + numbers(c) ** 2,
            }
        c_in = c
    c = int(4096 * width)
    layers["fc6"] = {
        "weight": numbers(c, c_in, 7, 7, scale=(2 / (49 * c_in)) ** 0.5),
        "bias": numbers(c),
    }
    layers["fc7"] = {
        "weight": numbers(c, c, 1, 1, scale=(2 / c) ** 0.5),
        "bias": numbers(c),
    }
    layers["fc8"] = {"weight": numbers(10, c, 1, 1), "bias": numbers(10)}
    return layers


def torchvision(layers, *, timm=False, top=True):
    """A state dict of torchvision's VGG, or of timm's."""
    batch_norm = "bn1_1" in layers
    convs = [name for name in layers if name.startswith("conv")]
    depth = {len(CONVS[d].split()): d for d in CONVS}[len(convs)]
    state = {}
    for place, name in zip(PLACES[depth, batch_norm], convs, strict=True):
        for kind, x in layers[name].items():
            state[f"features.{place}.{kind}"] = x
        if batch_norm:
            for kind, x in layers[name.replace("conv", "bn")].items():
                state[f"features.{place + 1}.{kind}"] = x
            tracked = np.array(7, np.int64)
            state[f"features.{place + 1}.num_batches_tracked"] = tracked
    heads = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    if timm:
        heads = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}
    for name, theirs in heads.items() if top else ():
        weight = layers[name]["weight"]
        if not timm or name == "fc8":
            weight = weight.reshape(len(weight), -1)
        state[f"{theirs}.weight"] = weight
        state[f"{theirs}.bias"] = layers[name]["bias"]
    return state


def save_keras(path, layers, *, top=True, whole_model=False):
    """Keras' HDF5: a group a layer, kernels as HWIO, the inner product of H.W.C."""
    names = {
        f"conv{n}": f"block{n[0]}_conv{n[2]}"
        for n in (name[4:] for name in layers if name.startswith("conv"))
    }
    names |= {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"} if top else {}
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        for name in ("input_1", "block1_pool", "flatten"):
            root.create_group(name)
        for ours, theirs in names.items():
            weight = layers[ours]["weight"].transpose(2, 3, 1, 0)
            if ours.startswith("fc"):
                weight = weight.reshape(-1, weight.shape[-1])
            group = root.create_group(theirs)
            if whole_model:
                group = group.create_group(theirs)
                group["kernel:0"], group["bias:0"] = weight, layers[ours]["bias"]
            else:
                group[f"{theirs}_W_1:0"] = weight
                group[f"{theirs}_b_1:0"] = layers[ours]["bias"]


def _varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def _field(number, content):
    """One protobuf field: an integer, or bytes with their length."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def caffemodel(tensors, *, old=False, old_blobs=False):
    """A NetParameter, by hand; tensors are lists of blobs by layer.

    ``old`` writes it as in 2014: V1 layers, blobs of always four axes; ``old_blobs``
    the blobs alone.
    """
    net = _field(1, b"a net")
    kinds = {"conv": 4, "fc": 14}
    for name, blobs in tensors.items():
        content = b""
        for x in blobs:
            data = _field(5, np.asarray(x, "<f4").tobytes())
            if old or old_blobs:
                shape = (1,) * (4 - x.ndim) + x.shape
                blob = b"".join(_field(i + 1, n) for i, n in enumerate(shape)) + data
            else:
                dims = b"".join(map(_varint, x.shape))
                blob = data + _field(7, _field(1, dims))
            content += _field(6 if old else 7, blob)
        if old:
            kind = kinds["fc" if name.startswith("fc") else "conv"]
            net += _field(2, _field(4, name.encode()) + _field(5, kind) + content)
        else:
            kind = _field(2, b"Convolution")
            net += _field(100, _field(1, name.encode()) + kind + content)
    relu = _field(4, b"relu1_1") if old else _field(1, b"relu1_1")
    net += _field(2 if old else 100, relu)
    # What readers have to pass over: a field that they do not know.
    return net + _field(77, struct.pack("<d", 1.0))


def expected(layers, *, bgr, top=True):
    """Our names and layouts: HWIO, RGB."""
    params, stats = {}, {}
    kinds = {"weight": "scale", "bias": "bias"}
    for name, tensors in layers.items():
        if name == "fc8" or (name.startswith("fc") and not top):
            continue
        if name.startswith("bn"):
            for theirs, ours in kinds.items():
                params[f"encoder/{name}/{ours}"] = tensors[theirs]
            stats[f"encoder/{name}/mean"] = tensors["running_mean"]
            stats[f"encoder/{name}/var"] = tensors["running_var"]
            continue
        kernel = np.moveaxis(tensors["weight"], (2, 3, 1, 0), (0, 1, 2, 3))
        if name == "conv1_1" and bgr:
            kernel = kernel[:, :, [2, 1, 0]]
        params[f"encoder/{name}/kernel"] = kernel
        params[f"encoder/{name}/bias"] = tensors["bias"]
    return params, stats


NETS = {
    "fcn32s": (("score_fr",), {"upscore": 64}),
    "fcn16s": (("score_fr", "score_pool4"), {"upscore2": 4, "upscore16": 32}),
    "fcn8s": (
        ("score_fr", "score_pool4", "score_pool3"),
        {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
    ),
}


def fcn_blobs(net):
    """A whole FCN as Caffe has it: fc6 and fc7 are convolutions."""
    rng = np.random.default_rng(1)
    layers = vgg(16)
    blobs = {n: [t["weight"], t["bias"]] for n, t in layers.items() if n != "fc8"}
    scores, ups = NETS[net]
    inputs = {"score_fr": 128, "score_pool4": 16, "score_pool3": 8}
    for name in scores:
        weight = rng.normal(size=(21, inputs[name], 1, 1)).astype(np.float32)
        blobs[name] = [weight, rng.normal(size=21).astype(np.float32)]
    for name, k in ups.items():
        blobs[name] = [rng.normal(size=(21, 21, k, k)).astype(np.float32)]
    return layers, blobs


def check(weights, layers, *, bgr, top=True, preprocessing):
    params, stats = expected(layers, bgr=bgr, top=top)
    assert weights.params.keys() == params.keys()
    assert weights.batch_stats.keys() == stats.keys()
    for found, wanted in ((weights.params, params), (weights.batch_stats, stats)):
        for name, x in wanted.items():
            np.testing.assert_array_equal(found[name], x, err_msg=name)
            assert found[name].dtype == np.float32
    np.testing.assert_allclose((weights.mean, weights.std), preprocessing)
    convs = sum(name.startswith("conv") for name in layers)
    assert {8: 11, 10: 13, 13: 16, 16: 19}[convs] == weights.depth
    assert weights.batch_norm == ("bn1_1" in layers)
    assert weights.geometry is None
