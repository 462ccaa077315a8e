"""FCN-8s from random weights on CamVid, or any small set of street scenes.

    python run_train.py --config=configs/camvid.py --config.data.source=FOLDER

FOLDER is in VOC layout: JPEGImages, SegmentationClass, ImageSets/Segmentation and
classes.txt. Sized for an hour on two CPU cores.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """A narrow VGG-16 with batch norm, at half resolution."""
    config = default.get_config()
    config.init_from = ""  # Random weights.
    config.data.name = "folder"
    config.data.image_scale = 0.5
    config.augment.crop = (180, 240)
    config.augment.scale = (0.75, 1.75)
    config.model.width = 0.375
    config.model.batch_norm = True
    config.batch_size = 4
    config.eval_batch_size = 4
    config.num_steps = 3_000
    config.loss.class_weights = "median_frequency"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "poly"
    config.optimizer.warmup_steps = 100
    config.log_every = 25
    config.eval_every = 500
    config.checkpoint_every = 100
    return config
