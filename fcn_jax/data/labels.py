"""Class ids, names and colours."""

import numpy as np

IGNORE = 255  # Void: pixels that are neither trained on nor scored.

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colours, uint8 [256,3] RGB; IGNORE is (224, 224, 192).

    The bits of an id, from the lowest, go to red, green, blue in turn, filling each
    channel from its highest bit.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for bit in range(8):
            source = 3 * bit + channel
            if source < 8:
                palette[:, channel] |= ((ids >> source & 1) << (7 - bit)).astype(
                    np.uint8
                )
    return palette
