"""FCN-16s as its authors trained it, from FCN-32s: 65.0 mean IoU on seg11valid."""

import ml_collections

from configs.reference import voc_fcn32s


def get_config() -> ml_collections.ConfigDict:
    """The second stage of the reference recipe."""
    config = voc_fcn32s.get_config()
    config.init_from = "runs/voc_fcn32s"
    config.model.stride = 16
    config.optimizer.learning_rate = 1e-12
    return config
