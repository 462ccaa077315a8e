"""FCN-8s on the whole VGG-16 from random weights, on CamVid: minutes on a GPU.

    python run_train.py --config=configs/camvid_vgg16.py --config.data.source=FOLDER

FOLDER is as for configs/camvid.py, whose losses this takes. Images at their full
480x360; sized for ten minutes on a GPU that trains on 200 of them a second.
"""

import ml_collections

from configs import camvid


def get_config() -> ml_collections.ConfigDict:
    """VGG-16 with batch norm, at full width and resolution."""
    config = camvid.get_config()
    config.data.image_scale = 1.0
    config.data.num_threads = 16
    config.augment.crop = (360, 480)
    config.model.depth = 16
    config.model.width = 1.0
    config.batch_size = 16
    config.eval_batch_size = 16
    config.num_steps = 6_000
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 200
    config.eval_every = 1_500
    config.checkpoint_every = 1_500
    return config
