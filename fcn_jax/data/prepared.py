"""Prepared data sets on disk: builds one if it is not there, and reads its records."""

import contextlib
import fcntl
import functools
import io
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds
from absl import logging

from fcn_jax.data import builder
from fcn_jax.errors import UserError


def prepare(
    config: builder.SegmentationConfig, data_dir: str | pathlib.Path
) -> pathlib.Path:
    """Returns the folder of the prepared set, building it first if it is not there.

    A set is built under a temporary name; it either appears whole or not at all. Of
    several processes that want the same set, one builds and the others wait.

    Raises:
        UserError: If a file is bad, as its sentence says.
    """
    folder = _folder(config.name, data_dir)
    if not folder.exists():
        with _lock(folder.parent):
            if not folder.exists():
                _remove_wrecks(folder.parents[1])
                _build(config, folder)
    return folder


def find(name: str, data_dir: str | pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of the prepared set of a config's name, if there is one."""
    folder = _folder(name, data_dir)
    return folder if folder.exists() else None


def _folder(name: str, data_dir: str | pathlib.Path) -> pathlib.Path:
    """Returns where TFDS puts a set."""
    data_dir = pathlib.Path(data_dir).expanduser().absolute()
    version = str(builder.SegmentationBuilder.VERSION)
    return data_dir / builder.SegmentationBuilder.name / name / version


def _remove_wrecks(folder: pathlib.Path) -> None:
    """Removes what killed builds left, of any set: it can be as large as the set."""
    for wreck in folder.glob("*/incomplete.*"):
        # A set that is locked is being built right now.
        with contextlib.suppress(BlockingIOError), _lock(wreck.parent, wait=False):
            shutil.rmtree(wreck, ignore_errors=True)


def _build(config: builder.SegmentationConfig, folder: pathlib.Path) -> None:
    data_dir = folder.parents[2]
    # Whatever is in the parent was left by a build that was killed.
    shutil.rmtree(folder.parent, ignore_errors=True)
    try:
        with (
            _silent_tfds(),
            contextlib.redirect_stdout(io.StringIO()),  # TFDS announces sizes of 0.
            tempfile.TemporaryDirectory() as unused,
        ):
            builder.SegmentationBuilder(
                data_dir=data_dir, config=config
            ).download_and_prepare(
                download_dir=unused,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                file_format="array_record",
            )
    except OSError as error:
        raise UserError(
            f"{folder.parent} cannot be written ({error.strerror or error}); make room "
            "or choose another folder for prepared data."
        ) from error
    finally:
        if not folder.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: pathlib.Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the file ``<path>.lock``; the system frees it if the process dies.

    Raises:
        BlockingIOError: If another process holds it, and this one is not to wait.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be written ({error}); prepared data must go into a "
            "folder that can be: choose another one."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@contextlib.contextmanager
def _silent_tfds() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def read_metadata(folder: pathlib.Path) -> dict:
    """Returns what the builder stored beside the records of a prepared set."""
    return dict(_open(folder).info.metadata)


@functools.lru_cache(maxsize=8)
def _open(folder: pathlib.Path) -> tfds.core.DatasetBuilder:
    with _silent_tfds():
        return tfds.builder_from_directory(folder)


class Source(Sequence):
    """The records of a split: {"image": bytes, "mask": bytes, "name": str}.

    Pickles as a path and a name, so that worker processes open their own files.
    """

    def __init__(self, folder: pathlib.Path, split: str):
        self._folder, self._split = folder, split

    @functools.cached_property
    def _records(self) -> Sequence:
        skip = tfds.decode.SkipDecoding()
        with _silent_tfds():
            return _open(self._folder).as_data_source(
                self._split, decoders={"image": skip, "mask": skip}
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Record {index} of {len(self)}.")
        record = self._records[index % len(self)]
        return record | {"name": record["name"].decode()}

    def __reduce__(self):
        return Source, (self._folder, self._split)
