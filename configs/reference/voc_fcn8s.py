"""FCN-8s as its authors trained it, from FCN-16s: 65.5 mean IoU on seg11valid."""

import ml_collections

from configs.reference import voc_fcn32s


def get_config() -> ml_collections.ConfigDict:
    """The third stage of the reference recipe."""
    config = voc_fcn32s.get_config()
    config.init_from = "runs/voc_fcn16s"
    config.model.stride = 8
    config.optimizer.learning_rate = 1e-14
    return config
