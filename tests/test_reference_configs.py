"""The reference recipe, field by field, against the solvers of the release."""

import pytest

from configs.reference import voc_fcn8s, voc_fcn8s_atonce, voc_fcn16s, voc_fcn32s
from fcn_jax.training import optim, setup

# From solver.prototxt, solve.py and net.py: net, rate, steps, start, skip scales.
NETS = [
    (voc_fcn32s, 32, 1e-10, 100_000, "vgg16-caffe", (1, 1)),
    (voc_fcn16s, 16, 1e-12, 100_000, "runs/voc_fcn32s", (1, 1)),
    (voc_fcn8s, 8, 1e-14, 100_000, "runs/voc_fcn16s", (1, 1)),
    (voc_fcn8s_atonce, 8, 1e-10, 300_000, "vgg16-caffe", (0.01, 0.0001)),
]


@pytest.mark.parametrize(("net", "stride", "rate", "steps", "start", "scales"), NETS)
def test_the_recipe_is_the_releases(net, stride, rate, steps, start, scales):
    config = net.get_config()
    assert config.model.stride == stride and config.model.depth == 16
    assert (config.model.width, config.model.batch_norm) == (1.0, False)
    assert (config.model.geometry, config.model.upsampling) == ("caffe", "bilinear")
    assert (config.model.dropout, config.model.score_init) == (0.5, "zeros")
    assert tuple(config.model.skip_scales) == scales
    assert tuple(config.model.mean) == (122.67892, 116.66877, 104.00699)
    assert tuple(config.model.std) == (1.0, 1.0, 1.0)
    assert config.model.dtype == "float32"
    assert config.init_from == start and config.trainable == ".*"

    assert (config.batch_size, config.accumulation_steps) == (1, 1)
    assert (config.num_steps, config.eval_every) == (steps, 4_000)
    assert config.seed == 1337
    assert config.data.name == "voc" and config.data.image_scale == 1.0
    assert config.data.train_split == "sbd_train"
    assert config.data.val_split == "seg11valid"
    assert config.data.with_replacement
    assert tuple(config.augment.crop) == ()
    assert tuple(config.augment.scale) == (1.0, 1.0)
    assert not config.augment.flip and not config.augment.photometric

    assert (config.loss.reduction, config.loss.class_weights) == ("sum", "")
    assert config.loss.label_smoothing == 0.0
    o = config.optimizer
    assert (o.name, o.momentum, o.weight_decay, o.clip_norm) == ("sgd", 0.99, 5e-4, 0)
    names = ["encoder/conv1_1/kernel", "encoder/conv1_1/bias"]
    names += ["decoder/score_fr/kernel", "decoder/score_fr/bias"]
    factors = optim.multipliers(names, o.multipliers)
    assert list(factors.values()) == [(1, 1), (2, 0), (1, 1), (2, 0)]
    schedule, _ = setup.make_optimizer(config, {n: True for n in names})
    assert [float(schedule(i)) for i in (0, steps - 1)] == pytest.approx([rate] * 2)
    setup.check(config)
