"""FCN-32s as its authors trained it: their solver, data and geometry.

shelhamer/fcn.berkeleyvision.org, ``voc-fcn32s``; 63.6 mean IoU on seg11valid.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """The first stage; the others change what they start from, and the rate."""
    config = default.get_config()
    config.seed = 1337
    config.batch_size = 1
    config.num_steps = 100_000
    config.eval_every = 4_000
    config.checkpoint_every = 1_000
    config.eval_batch_size = 1

    config.init_from = "vgg16-caffe"

    config.data.train_split = "sbd_train"
    config.data.val_split = "seg11valid"
    config.data.with_replacement = True
    config.augment.crop = ()  # Whole images at their own size.
    config.augment.scale = (1.0, 1.0)
    config.augment.flip = False
    config.augment.photometric = False

    config.model.stride = 32
    config.model.geometry = "caffe"
    config.model.mean = (122.67892, 116.66877, 104.00699)
    config.model.std = (1.0, 1.0, 1.0)
    config.model.dtype = "float32"

    config.loss.reduction = "sum"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-10  # For the sum of some 200 000 pixels.
    config.optimizer.momentum = 0.99
    config.optimizer.weight_decay = 5e-4
    config.optimizer.multipliers = ((".*/bias", 2.0, 0.0), (".*", 1.0, 1.0))
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    return config
