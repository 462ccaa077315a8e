"""What there is to know of one image or mask file, from one look at its pixels."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image

from fcn_jax.data import files as files_lib
from fcn_jax.data import images
from fcn_jax.errors import UserError

MOST_VALUES = 256  # Of a mask are kept; class ids are no more.
_FEW_VALUES = 64  # ... of masks with more: those that are no class ids.
_IN_FLIGHT = 4  # Files in memory at once, for each thread.

_T, _R = TypeVar("_T"), TypeVar("_R")


@dataclasses.dataclass
class Facts:
    """Of an image or a mask.

    Attributes:
        fault: "unreadable", "bomb", "turned", "beyond_range" or "".
        message: A sentence about the fault.
        size: Width and height in pixels, as stored; (0, 0) if unknown.
        mode: Pillow's name of the pixels' kind, such as "RGB" or "I;16".
        type: The file's type, such as "PNG".
    """

    fault: str = ""
    message: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    type: str = ""


@dataclasses.dataclass
class ImageFacts(Facts):
    """Of an image.

    Attributes:
        digest: Hash of the decoded pixels.
        extremes: Of greys of more than 8 bits: the least and the largest value.
        histogram: Of integers of 0 to 65535 of that kind: int64 [65536].
    """

    digest: bytes = b""
    extremes: tuple[float, float] | None = None
    histogram: np.ndarray | None = None


@dataclasses.dataclass
class MaskFacts(Facts):
    """Of a mask.

    Attributes:
        kind: "grey" (also palette indices), "colour", or "other" (floats).
        values: int64, the values or the colours 0xRRGGBB, most frequent first; of
            more than `MOST_VALUES` the first 64.
        counts: int64, the pixels of each.
        num_values: How many there are.
        num_pixels: Pixels in all.
        colours: int64, what the values are as 0xRRGGBB, if they are greys of 8 bits
            or have a palette.
    """

    kind: str = ""
    values: np.ndarray | None = None
    counts: np.ndarray | None = None
    num_values: int = 0
    num_pixels: int = 0
    colours: np.ndarray | None = None


def image(
    data: bytes, name: str, intensity_range: tuple[float, ...] = ()
) -> ImageFacts:
    """Looks at an image file; see `images.read_image`."""
    facts = ImageFacts()
    if not _read_header(data, name, facts):
        return facts
    wide = None
    if _is_wide(facts.mode) and (wide := _wide_values(data, name, facts)) is None:
        return facts
    if wide is not None and not intensity_range and _beyond(wide, facts.mode):
        facts.fault = "beyond_range"
        facts.message = f"values {wide.min()} to {wide.max()}"
        read = wide
    else:
        read = _read(data, name, intensity_range, facts)
    if read is not None:
        facts.digest = _digest(read if wide is None else wide)
    return facts


def mask(data: bytes, name: str, as_colours: bool = False) -> MaskFacts:
    """Looks at a mask file, whatever its values are.

    Args:
        data: The file.
        name: Its name, for messages.
        as_colours: Whether greys and palette indices count as the colours they have.
    """
    facts = MaskFacts()
    if not _read_header(data, name, facts):
        return facts
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as file:
            file.load()
            if file.getexif().get(0x0112, 1) in range(2, 9):
                facts.fault = "turned"
            if file.mode != "P" and file.has_transparency_data:
                lowest = file.convert("RGBA").getextrema()[3][0]
                facts.fault = "transparent" if lowest < 255 else facts.fault
            if as_colours and not _is_wide(file.mode):
                _count(file.convert("RGB"), facts)
            else:
                _count(file, facts)
    except Exception as error:  # Damaged files make decoders raise nearly anything.
        facts.fault, facts.message = "unreadable", f"{name} is damaged: {error}"
    return facts


def _read_header(data: bytes, name: str, facts: Facts) -> bool:
    """Fills in size, mode and type; tells whether the pixels may be decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as file:
            facts.size, facts.mode, facts.type = file.size, file.mode, file.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        claimed = re.search(r"\d+ pixels", str(error))
        facts.fault, facts.message = "bomb", claimed[0] if claimed else ""
        return False
    except Exception as error:
        facts.fault, facts.message = "unreadable", f"{name}: {error}"
        return False
    width, height = facts.size
    if width * height > images.MAX_PIXELS:
        facts.fault, facts.message = "bomb", f"{width}x{height} pixels"
        return False
    return True


def _is_wide(mode: str) -> bool:
    return mode == "F" or mode.startswith("I")


def _wide_values(data: bytes, name: str, facts: ImageFacts) -> np.ndarray | None:
    """The values of a grey image of more than 8 bits; None if it is damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as file:
            values = np.asarray(file)
    except Exception as error:  # Damaged files make decoders raise nearly anything.
        facts.fault, facts.message = "unreadable", f"{name}: {error}"
        return None
    ends = (values.min().item(), values.max().item())
    if not np.isfinite(ends).all():
        facts.fault, facts.message = (
            "unreadable",
            f"{name} has values that are no numbers",
        )
        return None
    facts.extremes = ends
    if values.dtype.kind in "iu" and not _beyond(values, facts.mode):
        facts.histogram = np.bincount(values.ravel(), minlength=1 << 16)
    return values


def _beyond(values: np.ndarray, mode: str) -> bool:
    """Whether `images.read_image` needs a range to read these; also if there is NaN."""
    most = 1 if mode == "F" else 65535
    return not (values.min() >= 0 and values.max() <= most)


def _read(
    data: bytes, name: str, intensity_range: tuple[float, ...], facts: ImageFacts
) -> np.ndarray | None:
    """Reads as training does; what can be read only if turned is noted as such."""
    for exif, fault in (("refuse", "turned"), ("apply", "unreadable")):
        try:
            return images.read_image(
                data, name, exif=exif, intensity_range=intensity_range
            )
        except UserError as error:
            facts.fault, facts.message = fault, str(error)
    return None


def _count(file: Image.Image, facts: MaskFacts) -> None:
    if file.mode in ("1", "L", "P") or file.mode.startswith("I"):
        facts.kind, pixels = "grey", np.array(file)
    elif file.mode == "F":
        facts.kind = "other"
        return
    else:
        facts.kind = "colour"
        rgb = np.asarray(file.convert("RGB")).astype(np.int64)
        pixels = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    values, counts = _run_counts(pixels.astype(np.int64).ravel())
    order = np.argsort(-counts, kind="stable")
    few = len(values) if len(values) <= MOST_VALUES else _FEW_VALUES
    facts.num_values, facts.num_pixels = len(values), int(counts.sum())
    facts.values, facts.counts = values[order[:few]], counts[order[:few]]
    if file.mode == "P":
        palette = np.zeros((256, 3), np.int64)
        own = np.array(file.getpalette("RGB")).reshape(-1, 3)
        palette[: len(own)] = own
        facts.colours = palette[facts.values] @ [1 << 16, 1 << 8, 1]
    elif file.mode in ("1", "L"):
        facts.colours = facts.values * (255 if file.mode == "1" else 1) * 0x010101


def _run_counts(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `np.unique` with counts; fast, since masks have long runs of one value."""
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, len(flat)))
    values, which = np.unique(flat[starts], return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, which, lengths)
    return values, counts


def _digest(pixels: np.ndarray) -> bytes:
    shape = f"{pixels.shape} {pixels.dtype.str}".encode()
    data = np.ascontiguousarray(pixels).data
    return hashlib.blake2b(data, digest_size=16, person=shape[:16]).digest()


def read(files: files_lib.Files, name: str, look: Callable[[bytes, str], _R]) -> _R:
    """Reads a file and looks at it; a file that cannot be read is "unreadable"."""
    try:
        data = files.read(name)
    except (UserError, OSError, ValueError):
        data = b""  # Which is no image, either.
    return look(data, name)


def in_threads(work: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Yields what ``work`` makes of each item, in order, a few ahead of the caller.

    Decoders and hashes release Python's lock, so that threads use all cores.
    """
    num_threads = min(8, os.cpu_count() or 1)
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _IN_FLIGHT * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
