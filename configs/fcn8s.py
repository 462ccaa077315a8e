"""FCN-8s with VGG-16 on PASCAL VOC2012."""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """The default recipe at output stride 8."""
    config = default.get_config()
    config.model.stride = 8
    return config
