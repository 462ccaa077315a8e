"""A small FCN-8s from random weights for your own folder: minutes on a CPU.

    python run_train.py --config=configs/small.py --config.data.source=FOLDER

FOLDER holds images and masks; python run_inspect.py --input=FOLDER looks it over first.
No download. For photos and a GPU, configs/fcn8s.py starts from ImageNet's weights.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """A narrow VGG-11 with batch norm, on crops of 160 by 160 pixels."""
    config = default.get_config()
    config.init_from = ""  # Random weights.
    config.data.name = "folder"
    config.augment.crop = (160, 160)
    config.augment.scale = (0.75, 1.25)
    config.model.depth = 11
    config.model.width = 0.25
    config.model.batch_norm = True
    config.model.dropout = 0.1
    config.loss.dice = 1.0  # Small things count as much as large ones.
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.batch_size = 8
    config.eval_batch_size = 4
    config.num_steps = 1_000
    config.log_every = 50
    config.eval_every = 250
    config.checkpoint_every = 250
    return config
