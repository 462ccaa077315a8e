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
from PIL import Image, ImageOps
from PIL.Image import Resampling

if len(sys.argv) != 3:
    sys.exit(__doc__)
here, mask = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[2])
model = json.loads((here / "model.json").read_text())
network = jax.export.deserialize(bytearray((here / "model.stablehlo").read_bytes()))
weights = dict(np.load(here / "weights.npz"))

image = ImageOps.exif_transpose(Image.open(sys.argv[1]))
ends = model["intensity_range"]
if image.mode[0] in "IF" or (ends and image.mode == "L"):  # Greys become 8 bits.
    low, high = ends or (0, 1 if image.mode == "F" else 65535)
    grey = np.asarray(image, np.float64)
    if not ends and not low <= grey.min() <= grey.max() <= high:
        sys.exit(f"{sys.argv[1]} has values that are not in {low} to {high}.")
    grey = np.clip((grey - low) * (255 / (high - low)), 0, 255)
    image = Image.fromarray(np.rint(grey).astype(np.uint8))
elif image.has_transparency_data:  # It is laid over white.
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)

scale = model["image_scale"]
size = [max(1, round(side * scale)) for side in image.size]
method = Resampling.BOX if scale < 0.7 else Resampling.BILINEAR
pixels = np.asarray(image.convert("RGB").resize(size, method))
logits = np.asarray(network.call(weights, pixels[None]))[0]  # float32 [h, w, classes]
planes = [Image.fromarray(x) for x in np.moveaxis(logits, -1, 0)]  # Class by class.
logits = np.stack([plane.resize(image.size, Resampling.BILINEAR) for plane in planes])

if model["task"] == "semantic":
    result = Image.fromarray(logits.argmax(0).astype(np.uint8))
    result.putpalette(sum(model["palette"], []))
    result.save(mask, "PNG")
else:
    for i, (plane, t) in enumerate(zip(logits, model["thresholds"], strict=True)):
        present = np.uint8(255) * (plane >= np.log(t / (1 - t)))  # sigmoid >= t
        Image.fromarray(present).save(mask.with_stem(f"{mask.stem}_{i}"), "PNG")
