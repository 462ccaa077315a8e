"""What there is to predict: images, folders, patterns, and frames of videos."""

import dataclasses
import functools
import glob
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from etils import epath

from fcn_jax import remote
from fcn_jax.data import folder, images
from fcn_jax.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")

# Of a video that ends earlier than its header says; headers may be a little wrong.
_WHOLE = 0.9


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file, or a frame of a video.

    Attributes:
        name: of the file; of a frame, its stem.
        stem: what the names of its results begin with.
        load: returns RGB, uint8 [h,w,3], or raises UserError; None if it is done.
    """

    name: str
    stem: str
    load: Callable[[], np.ndarray] | None


def printable(path: object) -> str:
    """A path for a message: in quotes if it has line breaks or the like."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def find_images(path: epath.PathLike) -> list[epath.Path]:
    """The images and videos that ``--input`` means, by name.

    Args:
        path: an image; a video; a folder, of which the images are meant, not those
            below it; or a pattern such as ``photos/**/*.jpg``.

    Raises:
        UserError: there is none, or two would write the same output files.
    """
    path = epath.Path(path)
    if not path.exists():
        found = _match(path)
        if found is None:
            raise UserError(
                f"--input={printable(path)} does not exist; give an image, a folder, a "
                "pattern in quotes, or a video."
            )
        suffixes = (*folder.IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    elif path.is_dir():
        found, suffixes = path.iterdir(), folder.IMAGE_SUFFIXES
    else:
        return [path]
    # Names with a dot in front are hidden: macOS has "._photo.jpg" beside photo.jpg.
    found = sorted(
        p for p in found if p.suffix.lower() in suffixes and p.name[0] != "."
    )
    if not found:
        what = "holds" if path.exists() else "matches"
        raise UserError(
            f"--input={printable(path)} {what} no images; give an image, or a folder "
            f"with files that end in {', '.join(suffixes)}."
        )
    _require_distinct(found)
    return found


def _match(path: epath.Path) -> list[epath.Path] | None:
    """The files that a pattern matches; None if it is no pattern."""
    if not glob.has_magic(str(path)):
        return None
    if not remote.is_url(path):
        found = glob.glob(str(path.expanduser()), recursive=True)
        return [epath.Path(p) for p in found]
    fixed = [part for part in path.parents if not glob.has_magic(str(part))][0]
    return list(fixed.glob(str(path)[len(str(fixed)) + 1 :]))


def _require_distinct(paths: Sequence[epath.Path]) -> None:
    """Raises UserError if two files would write the same results."""

    def refuse(a: epath.Path, b: epath.Path, stem: str):
        a, b = (a.name, b.name) if a.parent == b.parent else (a, b)
        raise UserError(
            f"--input: {printable(a)} and {printable(b)} would both write "
            f"{printable(stem)}_mask.png; rename one of them."
        )

    files, videos = {}, {}
    for path in paths:
        group = videos if is_video(path) else files
        if path.stem in group:
            refuse(group[path.stem], path, path.stem)
        group[path.stem] = path
    for stem, path in files.items():
        frame = re.fullmatch(r"(.*)_\d{6,}", stem, re.DOTALL)
        if frame and frame[1] in videos:
            refuse(path, videos[frame[1]], stem)


def is_video(path: epath.Path) -> bool:
    """Whether a file is one, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def expected(paths: Sequence[epath.Path], every: int) -> int:
    """About how many pictures there are: videos tell how many frames they have."""
    total = 0
    for path in paths:
        frames = 1
        if is_video(path) and not remote.is_url(path):
            video = _open(path)
            frames = -(-max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) // every)
            video.release()
        total += frames
    return total


def pictures(
    paths: Sequence[epath.Path],
    *,
    every: int = 1,
    is_done: Callable[[str], bool] = lambda stem: False,
    intensity_range: Sequence[float] = (),
) -> Iterator[Picture]:
    """All pictures of some files, in order; none is read before it is asked for.

    Args:
        paths: images and videos.
        every: of videos, take the first frame and then each ``every``-th.
        is_done: whether the results of a stem exist.
        intensity_range: see ``images.read_image``.
    """
    for path in paths:
        if is_video(path):
            yield from _frames(path, every, is_done)
        else:
            load = functools.partial(_read, path, intensity_range)
            done = is_done(path.stem)
            yield Picture(path.name, path.stem, None if done else load)


def _read(path: epath.Path, intensity_range: Sequence[float]) -> np.ndarray:
    name = printable(path)
    # Reading a pipe or a device might never end.
    if not remote.is_url(path) and path.exists() and not os.path.isfile(path):
        raise UserError(f"{name} is no regular file; remove it.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{name} cannot be read ({error.strerror or type(error).__name__}); mend "
            "or remove it."
        ) from error
    return images.read_image(data, name, exif="apply", intensity_range=intensity_range)


def _frames(
    path: epath.Path, every: int, is_done: Callable[[str], bool]
) -> Iterator[Picture]:
    def failure(sentence: str) -> Picture:
        def load():
            raise UserError(f"{printable(path)} {sentence}")

        return Picture(path.name, path.stem, load)

    if remote.is_url(path):
        yield failure("is a video in an object store; copy it to a disk first.")
        return
    video, number = _open(path), 0
    promised = video.get(cv2.CAP_PROP_FRAME_COUNT)
    try:
        while video.grab():
            stem = f"{path.stem}_{number:06d}"
            if number % every == 0 and is_done(stem):
                yield Picture(stem, stem, None)
            elif number % every == 0:
                good, frame = video.retrieve()
                if not good:
                    break
                load = functools.partial(cv2.cvtColor, frame, cv2.COLOR_BGR2RGB)
                yield Picture(stem, stem, load)
            number += 1
    finally:
        video.release()
    if number == 0:
        yield failure("is no video that OpenCV can decode; convert it to H.264 .mp4.")
    elif number < _WHOLE * promised:
        yield failure(
            f"ends after {number} of {promised:.0f} frames, those are done; copy it "
            "again if it is damaged."
        )


def _open(path: epath.Path) -> cv2.VideoCapture:
    # Of what cannot be read, we have a sentence.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    # Absolute, so that FFmpeg takes no part of a name for a protocol.
    return cv2.VideoCapture(str(pathlib.Path(path).resolve()), cv2.CAP_FFMPEG)
