"""Batches from records, read by Grain: each a pure function of the seed and the step.

The order of the examples is made and cut into batches for all processes together; of
every batch each process reads the places that its devices hold. Hence there is no
iterator state to save, and one process or many, any number of workers and any first
step give the same batches.
"""

import dataclasses
import functools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

import grain
import numpy as np
from absl import flags

from fcn_jax.data import transforms
from fcn_jax.errors import UserError

_ENDLESS = 2**62  # Examples; Python's `len` has room for twice as many.


def train_batches(
    source: Sequence,
    *,
    augment: Callable[[Any, np.random.Generator], dict[str, np.ndarray]],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    with_replacement: bool = False,
    places: Sequence[int] | None = None,
    num_workers: int = 0,
    num_threads: int = 2,
    prefetch: int = 4,
) -> grain.DatasetIterator:
    """Returns an endless iterator of this process's share of the training batches.

    Every epoch is a new permutation of the source and a new draw of the augmentation;
    a batch may span two epochs. Reading starts at once, in the background.

    Args:
        source: Records; must pickle if there are workers.
        augment: Makes an example of a record, as `transforms.Augment` does.
        batch_size: Examples in a batch of all processes together.
        seed: Of the order and of the augmentation; 0 or more.
        start_step: The step that the first batch belongs to.
        with_replacement: Whether every example is drawn at random from all, as the
            reference does, instead of each once an epoch.
        places: The places in a batch of the examples that this process reads, as
            `sharding.own_examples` has them; None: all.
        num_workers: Number of worker processes; 0 reads in this one, which is as fast
            as long as its threads have the cores: decoding and resizing release the
            interpreter's lock. Workers' batches come through shared memory (/dev/shm).
        num_threads: Number of reading threads in each process that reads.
        prefetch: Batches held ready by each process that reads, at least as many as it
            has threads.

    Returns:
        An iterator of dicts of arrays [len(places), ...]. Its `close()`
        stops the workers; so does the end of the program.

    Raises:
        UserError: If there are no records, or batches would have none.
    """
    _check(source, batch_size)
    if seed < 0:
        raise UserError(f"The seed is {seed}; it must be 0 or more.")
    read = _ReadShuffled(source, augment, seed, with_replacement)
    return _iterate(
        grain.MapDataset.range(_ENDLESS).seed(seed).random_map(read),
        batch_size,
        places,
        start_step=start_step,
        num_workers=num_workers,
        num_threads=num_threads,
        prefetch=prefetch,
    )


def eval_batches(
    source: Sequence,
    *,
    batch_size: int,
    canvas: tuple[int, int],
    label_canvas: tuple[int, int],
    image_scale: float = 1.0,
    num_masks: int | None = None,
    places: Sequence[int] | None = None,
    num_workers: int = 0,
    num_threads: int = 2,
    prefetch: int = 4,
) -> grain.DatasetIterator:
    """Returns an iterator of this process's share of all examples, each exactly once.

    Every process gets `num_batches` batches of the same shape: what is missing in the
    last is filled up with examples that have no labelled pixel.

    Args:
        source: Records; must pickle if there are workers.
        batch_size: Examples in a batch of all processes together.
        canvas: Height and width that every resized image fits in.
        label_canvas: Height and width that every label fits in.
        image_scale: Factor on the images; labels keep their size.
        num_masks: Of each image, see `transforms.decode`.
        places: The places in a batch of the examples that this process reads, as
            `sharding.own_examples` has them; None: all.
        num_workers: Number of worker processes; 0 reads in this one.
        num_threads: Number of reading threads in each process that reads.
        prefetch: Batches held ready by each process that reads.

    Returns:
        An iterator of dicts of arrays [len(places), ...], made by
        `transforms.evaluation_example`. Its `close()` stops the workers.

    Raises:
        UserError: If there are no records, or batches would have none.
    """
    _check(source, batch_size)
    read = _ReadInOrder(
        source,
        functools.partial(
            transforms.evaluation_example,
            canvas=canvas,
            label_canvas=label_canvas,
            image_scale=image_scale,
            num_masks=num_masks,
        ),
        transforms.unlabelled_example(canvas, label_canvas, num_masks),
    )
    num_examples = num_batches(len(source), batch_size) * batch_size
    return _iterate(
        grain.MapDataset.range(num_examples).map(read),
        batch_size,
        places,
        num_workers=num_workers,
        num_threads=num_threads,
        prefetch=prefetch,
    )


def num_batches(num_examples: int, batch_size: int) -> int:
    """Returns how many batches hold all examples, the last one filled up."""
    return math.ceil(num_examples / batch_size)


def _check(source: Sequence, batch_size: int) -> None:
    if not len(source):
        raise UserError("The data set's split has no images; choose another split.")
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class _ReadShuffled:
    """Makes the training example of an index that counts on through the epochs."""

    source: Sequence
    augment: Callable
    seed: int
    with_replacement: bool

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        epoch, place = divmod(index, len(self.source))
        order = _order(len(self.source), self.seed, epoch, self.with_replacement)
        record = int(order[place])
        return _read(self.source, record, self.augment, rng)


@functools.lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int, with_replacement: bool) -> np.ndarray:
    """Returns an epoch's permutation, or as many draws with replacement.

    Grain's own `shuffle` needs no memory, but searches for each index among 2**16: on
    100 images that takes 0.3 ms an example, on 5 images 4 ms, longer than to decode it.
    """
    rng = np.random.default_rng((seed, epoch))
    return (
        rng.integers(length, size=length)
        if with_replacement
        else rng.permutation(length)
    )


@dataclasses.dataclass(frozen=True)
class _ReadInOrder:
    """Makes the evaluation example of an index; beyond the source it is ``fill``."""

    source: Sequence
    transform: Callable
    fill: dict[str, np.ndarray]

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        if index >= len(self.source):
            return self.fill
        return _read(self.source, index, self.transform)


def _read(source: Sequence, index: int, transform: Callable, *rng: np.random.Generator):
    try:
        return transform(source[index], *rng)
    except UserError:
        raise
    except Exception as error:
        # An exception that does not pickle would be lost on its way out of a worker
        # process, and the reader would wait for ever. A RuntimeError arrives.
        raise RuntimeError(
            f"Example {index} cannot be read. {type(error).__name__}: {error}"
        ) from error


class _Share(grain.MapDataset):
    """Of every batch, the examples at some places."""

    def __init__(
        self, parent: grain.MapDataset, batch_size: int, places: tuple[int, ...]
    ):
        super().__init__(parent)
        self._batch_size, self._places = batch_size, places

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._places)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        batch, i = divmod(index, len(self._places))
        return self._parent[batch * self._batch_size + self._places[i]]


def _iterate(
    examples: grain.MapDataset,
    batch_size: int,
    places: Sequence[int] | None,
    *,
    start_step: int = 0,
    num_workers: int,
    num_threads: int,
    prefetch: int,
) -> grain.DatasetIterator:
    """Batches the examples and reads this process's share of the batches."""
    places = tuple(range(batch_size) if places is None else places)
    own = _Share(examples, batch_size, places).batch(len(places))
    # Grain makes a whole batch in each thread: fewer ready ones would idle the rest.
    batches = own[start_step:].to_iter_dataset(
        grain.ReadOptions(
            num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
        )
    )
    if num_workers:
        if not flags.FLAGS.is_parsed():
            # Grain passes its flags on to the workers; without absl's app (a notebook,
            # a test) nobody has parsed them, and their defaults hold.
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers), _start_worker
        )
    iterator = iter(batches)
    iterator.start_prefetch()
    return iterator


def _start_worker(worker_index: int, worker_count: int) -> None:
    """Ties the life of a worker process to that of its parent."""
    del worker_index, worker_count
    # Ctrl-C reaches the whole group; the parent then closes its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent that was killed closes nothing, and would leave its workers for ever.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
