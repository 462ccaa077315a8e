"""A small FCN-8s from random weights for your own folder: minutes on a CPU.

    python run_train.py --config=configs/small.py --config.data.source=FOLDER

FOLDER holds images and masks; python run_inspect.py --input=FOLDER looks it over first.
No download. For photos and a GPU, configs/fcn8s.py starts from ImageNet's weights.
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    """The quick start's narrow VGG-11, on crops of 160 by 160 pixels."""
    config = quickstart.get_config()
    config.data.name = "folder"
    config.augment.crop = (160, 160)
    config.loss.dice = 1.0  # Small things count as much as large ones.
    config.eval_batch_size = 4
    config.num_steps = 1_000
    config.log_every = 50
    config.eval_every = 250
    config.checkpoint_every = 250
    return config
