"""FCN-8s from random weights on CamVid, or any small set of street scenes.

    python run_train.py --config=configs/camvid.py --config.data.source=FOLDER

FOLDER is in VOC layout: JPEGImages, SegmentationClass, ImageSets/Segmentation and
classes.txt. Sized for half an hour on two CPU cores; found by the search of
docs/performance.md.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """A narrow VGG-11 with batch norm, at half resolution."""
    config = default.get_config()
    config.init_from = ""  # Random weights.
    config.data.name = "folder"
    config.data.image_scale = 0.5
    config.augment.crop = (180, 240)
    config.augment.scale = (0.9, 1.3)
    config.model.depth = 11
    config.model.width = 0.25
    config.model.batch_norm = True
    config.model.dropout = 0.1
    config.loss.dice = 1.0
    config.loss.class_weights = "root_median_frequency"
    config.batch_size = 4
    config.eval_batch_size = 4
    config.num_steps = 4_000
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.warmup_steps = 100
    config.log_every = 50
    config.eval_every = 1_000
    config.checkpoint_every = 500
    return config
