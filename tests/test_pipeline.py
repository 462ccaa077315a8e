"""The batch law: any processes, workers, threads and first step give the same."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fcn_jax import errors
from fcn_jax.data import pipeline, transforms


class Numbers:
    """Records that are their own numbers."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert 0 <= index < self.length
        return index


def number(record, rng):
    return {"record": np.int64(record), "draw": rng.integers(2**62, size=2)}


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.lock = multiprocessing.Lock()


def fail(record, rng):
    if record == 3:
        raise Unpicklable("this", "that")
    return number(record, rng)


def refuse(record, rng):
    raise errors.UserError("The record is bad; mend it.")


def vanish(record, rng):
    os._exit(7)


def take(count, source=None, **options):
    options = {"augment": number, "batch_size": 8, "seed": 5} | options
    batches = pipeline.train_batches(
        Numbers(13) if source is None else source, **options
    )
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_every_epoch_is_a_new_permutation_and_a_new_draw():
    taken = take(13)
    records = np.concatenate([batch["record"] for batch in taken])
    draws = np.concatenate([batch["draw"] for batch in taken])
    epochs = records.reshape(8, 13)
    for epoch in epochs:
        assert sorted(epoch) == list(range(13))
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert len({tuple(draw) for draw in draws}) == 104


def test_shuffle_favours_no_place():
    taken = take(500, source=Numbers(5), batch_size=5)
    places = np.stack([batch["record"] for batch in taken])
    counts = [np.bincount(column, minlength=5) for column in places.T]
    # 100 expected everywhere, with a standard deviation of 9.
    assert np.min(counts) > 60 and np.max(counts) < 140


def test_draws_with_replacement_are_independent_and_fair():
    source, count = Numbers(13), 13 * 40
    batches = take(count // 13, source, batch_size=13, with_replacement=True)
    epochs = np.stack([batch["record"] for batch in batches])
    # 13 draws of 13 leave out (12/13)**13 of the records, 35 %; a permutation none.
    missing = np.mean([13 - len(set(epoch)) for epoch in epochs.tolist()]) / 13
    assert 0.30 < missing < 0.40
    # Each record is drawn 40 times, give or take four standard deviations.
    times = np.bincount(epochs.ravel(), minlength=13)
    assert np.abs(times - 40).max() < 4 * (count / 13 * 12 / 13) ** 0.5
    for options in ({"places": [0]}, {"start_step": 2}, {"num_threads": 1}):
        again = take(3, source, batch_size=13, with_replacement=True, **options)
        start = options.get("start_step", 0)
        for a, b in zip(batches[start:], again, strict=False):
            np.testing.assert_array_equal(b["record"], a["record"][: len(b["record"])])


def test_order_and_draws_depend_on_the_seed():
    assert_same(take(3), take(3))
    other = take(3, seed=6)
    for one, two in zip(take(3), other, strict=True):
        assert (one["record"] != two["record"]).any()
        assert (one["draw"] != two["draw"]).all()


@pytest.mark.parametrize("start", [1, 3, 8, 200])
def test_a_batch_does_not_depend_on_those_before(start):
    whole = take(start + 2)
    assert_same(whole[start:], take(2, start_step=start))


def test_a_process_may_have_any_places_of_a_batch():
    for whole, own in zip(take(3), take(3, places=(0, 3, 2)), strict=True):
        for key in whole:
            np.testing.assert_array_equal(own[key], whole[key][[0, 3, 2]])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_batches(count):
    whole = take(3, start_step=2)
    shares = [
        take(
            3,
            start_step=2,
            places=np.split(np.arange(len(whole[0]["record"])), count)[i],
        )
        for i in range(count)
    ]
    for step, batch in enumerate(whole):
        for key in batch:
            joined = np.concatenate([share[step][key] for share in shares])
            np.testing.assert_array_equal(joined, batch[key])


def test_one_example_is_a_batch_too():
    single = take(8, batch_size=1)
    joined = {key: np.concatenate([one[key] for one in single]) for key in single[0]}
    assert_same(take(1), [joined])


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_threads_change_nothing(num_threads):
    assert_same(take(5), take(5, num_threads=num_threads, prefetch=num_threads))


def made_records(sizes):
    """Records of random images and masks of the given sizes, with some void."""
    rng = np.random.default_rng(0)
    records = []
    for height, width in sizes:
        image = rng.integers(256, size=(height, width, 3)).astype(np.uint8)
        mask = rng.integers(6, size=(height, width)).astype(np.uint8)
        mask[mask == 5] = 255
        record = {
            "image": cv2.imencode(".png", image)[1].tobytes(),
            "mask": cv2.imencode(".png", mask)[1].tobytes(),
            "name": f"{height}x{width}",
            "counts": np.bincount(mask[mask != 255], minlength=5),
        }
        records.append(record)
    return records


def test_workers_change_nothing():
    source = made_records([(20, 30), (31, 17), (9, 40), (26, 26), (12, 12)])
    options = {"augment": transforms.Augment(crop=(24, 24)), "batch_size": 4}
    options |= {"source": source, "start_step": 3}
    here = take(5, **options)
    assert here[0]["image"].shape == (4, 24, 24, 3)
    assert here[0]["size"].shape == (4, 2)
    assert_same(here, take(5, num_workers=2, **options))
    assert not multiprocessing.active_children()

    options = {"batch_size": 2, "canvas": (31, 40), "label_canvas": (32, 48)}
    there = pipeline.eval_batches(source, num_workers=2, **options)
    assert_same(list(pipeline.eval_batches(source, **options)), list(there))
    there.close()


@pytest.mark.parametrize("batch_size", [4, 8])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9])
def test_evaluation_sees_every_labelled_pixel_once(length, batch_size):
    source = made_records([(4 + i, 11 - i) for i in range(length)])
    want = sum(record["counts"] for record in source)
    for count in (1, 2, 4):
        found = np.zeros(5, np.int64)
        real = 0
        for index in range(count):
            batches = list(
                pipeline.eval_batches(
                    source,
                    batch_size=batch_size,
                    canvas=(12, 12),
                    label_canvas=(16, 12),
                    places=np.split(np.arange(batch_size), count)[index],
                )
            )
            assert len(batches) == pipeline.num_batches(length, batch_size)
            for batch in batches:
                share = batch_size // count
                assert batch["image"].shape == (share, 12, 12, 3)
                assert batch["label"].shape == (share, 16, 12)
                assert (batch["size"] >= 1).all() and (batch["label_size"] >= 1).all()
                label = batch["label"]
                found += np.bincount(label[label != 255], minlength=5)
                real += np.sum(np.any(label != 255, axis=(1, 2)))
        np.testing.assert_array_equal(found, want)
        assert real == length


def test_evaluation_keeps_the_order():
    source = made_records([(i, 2) for i in range(1, 8)])
    batches = pipeline.eval_batches(
        source, batch_size=4, canvas=(8, 8), label_canvas=(8, 8)
    )
    heights = np.concatenate([batch["label_size"][:, 0] for batch in batches])
    np.testing.assert_array_equal(heights, [1, 2, 3, 4, 5, 6, 7, 1])


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (Numbers(0), {}, "no images"),
        (Numbers(3), {"batch_size": 0}, "batch size is 0"),
    ],
)
def test_impossible_batches_are_refused(source, options, words):
    options = {"batch_size": 4} | options
    with pytest.raises(errors.UserError, match=words):
        pipeline.train_batches(source, augment=number, seed=0, **options)
    with pytest.raises(errors.UserError, match=words):
        pipeline.eval_batches(source, canvas=(1, 1), label_canvas=(1, 1), **options)


def test_a_negative_seed_is_refused():
    with pytest.raises(errors.UserError, match="seed is -1"):
        take(1, seed=-1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_errors_arrive(num_workers):
    options = {"num_workers": num_workers, "source": Numbers(4)}
    with pytest.raises(RuntimeError, match="Example 3 .*Unpicklable: this and that"):
        take(4, augment=fail, **options)
    with pytest.raises(errors.UserError) as refused:
        take(4, augment=refuse, **options)
    assert str(refused.value) == "The record is bad; mend it."


def test_a_worker_that_dies_is_noticed():
    with pytest.raises(RuntimeError, match="exit code 7"):
        take(1, augment=vanish, num_workers=1)


PROGRAM = """
import os

from fcn_jax.data import pipeline


def augment(record, rng):
    return {"worker": os.getpid()}


def main():
    batches = pipeline.train_batches(
        [0, 1, 2], augment=augment, batch_size=1, seed=0, num_workers=1
    )
    print(next(batches)["worker"][0], flush=True)
    input()


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("end", "codes"),
    [
        ("return", [0]),
        # 1 where the interrupt meets a thread, whose error ends the program.
        ("interrupt", [-signal.SIGINT, 1]),
        ("kill", [-signal.SIGKILL]),
    ],
)
def test_workers_end_with_the_program(tmp_path, end, codes):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as process:
        assert int(process.stdout.readline()) != process.pid
        if end == "kill":
            process.kill()
        elif end == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        # The workers have the same stdout and stderr: this waits for their end, too.
        _, complaints = process.communicate(
            "\n" if end == "return" else None, timeout=60
        )
        assert process.returncode in codes
        # An interrupt may strike any thread, and more than one may tell of it.
        assert ("Traceback" in complaints) == (end == "interrupt")
