"""Segments a picture with the network beside this file: python predict.py IMAGE MASK.

Needs jax, flatbuffers, numpy and pillow. MASK is a palette PNG of class ids; where a
pixel may be of several classes there is one of 0 and 255 for each, with the class's
number before the ending.
"""

import json
import pathlib
import sys

import jax.export
import numpy as np
from PIL import Image

here, picture, mask = (
    pathlib.Path(__file__).parent,
    sys.argv[1],
    pathlib.Path(sys.argv[2]),
)
model = json.loads((here / "model.json").read_text())
network = jax.export.deserialize(bytearray((here / "model.stablehlo").read_bytes()))
weights = dict(np.load(here / "weights.npz"))

image = Image.open(picture).convert("RGB")
size = [max(1, round(side * model["image_scale"])) for side in image.size]
pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
logits = np.asarray(network.call(weights, pixels[None]))[0]  # float32 [h, w, classes]

if model["task"] == "multilabel":
    present = 1 / (1 + np.exp(-logits)) >= np.array(model["thresholds"])
    masks = {mask.with_stem(f"{mask.stem}_{i}"): m for i, m in enumerate(present.T)}
    masks = {path: m.T.astype(np.uint8) * 255 for path, m in masks.items()}
else:
    masks = {mask: logits.argmax(-1).astype(np.uint8)}
for path, ids in masks.items():
    result = Image.fromarray(ids).resize(image.size, Image.Resampling.NEAREST)
    if model["task"] == "semantic":
        result.putpalette(sum(model["palette"], []))
    result.save(path, "PNG")
