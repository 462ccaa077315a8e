"""Prepared data sets: builds one if it is not there, and reads its records.

Records are read at random, which takes a local disk. A set whose place is an object
store (``gs://``) is built or fetched into a cache on this machine, and opened there.
"""

import contextlib
import fcntl
import functools
import io
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence

import fsspec
import tensorflow_datasets as tfds
import tqdm
from absl import logging

from fcn_jax import remote
from fcn_jax.data import builder
from fcn_jax.errors import UserError

CACHE = "~/.cache/fcn_jax/prepared"
_MARKER = "dataset_info.json"  # A set is uploaded with this last, so is whole with it.


def prepare(
    config: builder.SegmentationConfig,
    data_dir: str | pathlib.Path,
    *,
    cache: str | pathlib.Path = CACHE,
) -> pathlib.Path:
    """Returns the local folder of the prepared set, building it if it is not there.

    A set is built under a temporary name; it either appears whole or not at all. Of
    several processes that want the same set, one builds and the others wait.

    Args:
        config: The set.
        data_dir: Sets lie below it; a path or a URL.
        cache: Has the local copies of what is at a URL.

    Raises:
        UserError: If a file is bad, or a place cannot be used, as its sentence says.
    """
    folder = _folder(config.name, local(data_dir, cache))
    store = _Store(data_dir, folder) if remote.is_url(data_dir) else None
    if store or not folder.exists():
        with _lock(folder.parent):
            if not folder.exists():
                _remove_wrecks(folder.parents[1])
                if not (store and store.fetch()):
                    if store:
                        # A build may take long.
                        remote.require_usable(data_dir, write=True)
                    _build(config, folder)
            if store:
                store.upload()  # Also what a run that was killed had built.
    return folder


def find(
    name: str, data_dir: str | pathlib.Path, *, cache: str | pathlib.Path = CACHE
) -> pathlib.Path | None:
    """Returns the local folder of the prepared set of a config's name, if there is one.

    Raises:
        UserError: If a place cannot be used, as its sentence says.
    """
    folder = _folder(name, local(data_dir, cache))
    if remote.is_url(data_dir) and not folder.exists():
        with _lock(folder.parent):
            if not folder.exists():
                _Store(data_dir, folder).fetch()
    return folder if folder.exists() else None


def local(
    data_dir: str | pathlib.Path, cache: str | pathlib.Path = CACHE
) -> str | pathlib.Path:
    """Returns a path as it is, for a URL the folder of the cache that stands for it."""
    if not remote.is_url(data_dir):
        return data_dir
    return pathlib.Path(cache).expanduser() / str(data_dir).replace("://", "/")


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


class _Store:
    """The place of a set in an object store, and its copy in a folder of the cache."""

    def __init__(self, data_dir: str | pathlib.Path, folder: pathlib.Path):
        self._folder = folder
        self._url = "/".join([str(data_dir).rstrip("/"), *folder.parts[-3:]])
        with remote.explained(self._url):
            # Other machines change what is there, so no listing is remembered.
            self._files, self._path = fsspec.core.url_to_fs(
                self._url, use_listings_cache=False
            )

    def fetch(self) -> bool:
        """Copies the set to this machine, whole or not at all; False: there is none."""
        if not self._is_whole():
            return False
        part = self._folder.with_name(f"incomplete.fetched_{self._folder.name}")
        part.mkdir(parents=True, exist_ok=True)
        try:
            with remote.explained(self._url):
                found = self._files.ls(self._path, detail=True)
            names = [(f["name"], f["name"].rsplit("/", 1)[1], f["size"]) for f in found]
            jobs = [(path, str(part / name), size) for path, name, size in names]
            self._copy("Fetching", self._files.get_file, jobs)
            part.rename(self._folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return True

    def upload(self) -> None:
        """Copies the set to the store, unless it is there; the marker last."""
        if not self._is_whole():
            files = sorted(self._folder.iterdir(), key=lambda f: f.name == _MARKER)
            jobs = [(str(f), f"{self._path}/{f.name}", f.stat().st_size) for f in files]
            self._copy("Uploading", self._files.put_file, jobs)

    def _is_whole(self) -> bool:
        with remote.explained(self._url):
            return self._files.exists(f"{self._path}/{_MARKER}")

    def _copy(self, title: str, copier: Callable, jobs: Sequence[tuple]) -> None:
        """Copies files, each given by its source, target and size in bytes."""
        total = sum(size for *_, size in jobs)
        with (
            remote.explained(self._url),
            tqdm.tqdm(desc=title, total=total, unit="B", unit_scale=True) as bar,
        ):
            for source, target, _ in jobs:
                copier(source, target, callback=_Progress(bar))


class _Progress(fsspec.Callback):
    """Shows the bytes of one file that have been copied."""

    def __init__(self, bar: tqdm.tqdm):
        super().__init__()
        self._bar, self._start = bar, bar.n

    def call(self, *args, **kwargs) -> None:
        """Is called whenever ``value`` has changed."""
        self._bar.update(self._start + self.value - self._bar.n)


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
