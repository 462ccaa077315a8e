"""A small FCN-8s on generated shapes: minutes on a laptop's CPU, no download."""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """To be run first: shows that the installation works."""
    config = default.get_config()
    config.init_from = ""  # Random weights.
    config.data.name = "shapes"
    config.augment.crop = (96, 96)
    config.augment.scale = (0.75, 1.25)
    config.model.depth = 11
    config.model.width = 0.25
    config.model.batch_norm = True
    config.model.dropout = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.batch_size = 8
    config.num_steps = 1_600
    config.log_every = 100
    config.eval_every = 800
    config.checkpoint_every = 400
    return config
