"""The receptive field that is computed, against what networks really respond to."""

import jax
import numpy as np
import pytest

from fcn_jax.models import fcn, receptive_field

LONG = 864  # Pixels; what is looked at is in the middle.
DISTANT = 320  # More than any network looks.


def responses(model, along):
    """Which pixels' scores change with each of 32 pixels, bool [32, LONG].

    All kernels are ones, so that every layer, max pooling included, passes on a larger
    value, and none can cancel another.
    """
    short = 40
    shape = (LONG, short) if along == 0 else (short, LONG)
    images = np.zeros((32, *shape, 3), np.float32)
    for i, pixel in enumerate(range(LONG // 2, LONG // 2 + 32)):
        images[(i, pixel, 20) if along == 0 else (i, 20, pixel)] = 1
    variables = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    ones = jax.tree.map(
        lambda x: np.full(x.shape, 1.0 if x.ndim > 1 else 0.0, np.float32), variables
    )
    scores = jax.jit(lambda x: model.apply(ones, x)[..., 0].max(2 - along))(images)
    return np.asarray(scores) > 0


@pytest.mark.parametrize(
    ("depth", "stride", "geometry", "along"),
    [
        (11, 32, "same", 0),
        (11, 16, "same", 1),
        (16, 8, "same", 1),
        (11, 32, "caffe", 1),
        (11, 16, "caffe", 0),
        (11, 8, "caffe", 1),
    ],
)
def test_a_score_depends_on_all_pixels_within_reach_and_on_no_other(
    depth, stride, geometry, along
):
    model = fcn.create(
        2, width=1 / 512, depth=depth, stride=stride, geometry=geometry,
        dtype="float32", mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    changed = responses(model, along)
    before = after = 0
    for score in range(LONG // 2 - DISTANT, LONG // 2 + DISTANT):
        first, last = receptive_field.pixels_seen(model, score)
        pixels = np.arange(LONG // 2, LONG // 2 + 32)
        seen = (first <= pixels) & (pixels <= last)
        np.testing.assert_array_equal(changed[:, score], seen)
        before = max(before, score - first)
        after = max(after, last - score)
    assert (before, after) == receptive_field.reach(model)
    assert not changed[:, : LONG // 2 - DISTANT].any()
    assert not changed[:, LONG // 2 + 32 + DISTANT :].any()


def test_the_margin_is_a_multiple_of_32_and_no_larger_than_need_be():
    for depth in (11, 13, 16, 19):
        for stride in (32, 16, 8):
            model = fcn.create(2, depth=depth, stride=stride)
            before, after = receptive_field.reach(model)
            margin = receptive_field.margin(model)
            assert margin % 32 == 0
            assert margin - 32 < max(before, after + 1) <= margin
