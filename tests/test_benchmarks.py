"""What the benchmarks say, where it can be known without measuring."""

import time

import numpy as np
import pytest

from benchmarks import competitors, measure, peer_input
from fcn_jax.data import transforms


def test_flops_are_those_that_are_published():
    case = competitors.Case.parse("infer:same:224x224:1:float32")
    # VGG-16 takes 15.47 G products of an image of 224x224, classifier included; of
    # which fc6 as a 7x7 convolution with padding takes 49 times the first layer's, fc7
    # likewise, and there is no fc8.
    convolutions = 15_346_630_656
    head = 49 * (7 * 7 * 512 * 4096 + 4096 * 4096)
    assert case.flops() == 2 * (convolutions + head)
    train = competitors.Case.parse("train:same:224x224:2:float32")
    first = 224 * 224 * 9 * 3 * 64
    assert train.flops() == 2 * 2 * (3 * (convolutions + head) - first)


def nap(seconds):
    """A side that sleeps and counts."""
    count = 0

    def work():
        nonlocal count
        time.sleep(seconds)
        count += 1
        return count

    return work


def fail():
    """A side that cannot be built."""
    raise ValueError("no GPU")


def test_sides_take_turns_in_processes_of_their_own():
    with measure.sides(short=(nap, 0.0), long=(nap, 0.05)) as sides:
        times = measure.take_turns(sides, 3)
        assert [side.result() for side in sides.values()] == [7, 7]
        assert all(side.peak_gib() > 0 for side in sides.values())
    assert times["long"]["lowest"] >= 0.05 and len(times["short"]["all"]) == 3


def test_a_side_that_fails_ends_the_benchmark_with_its_reason():
    with pytest.raises(SystemExit, match="ValueError: no GPU"):
        with measure.sides(bad=(fail,)):
            pass


def test_the_peers_examples_are_ours_without_augmentation():
    (record,) = peer_input.make_records(40, 60, 1)
    ours = transforms.Augment(
        crop=(40, 60), scale=(1.0, 1.0), flip=False, photometric=False
    )(record, np.random.default_rng(0))
    theirs = peer_input.Usual((40, 60), (1.0, 1.0), flip=False, colours=False)(record)
    for name in ("image", "label"):
        np.testing.assert_array_equal(ours[name], theirs[name])
