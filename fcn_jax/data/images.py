"""Image files: bytes to arrays and back.

Two readers, for two kinds of bytes. `read_image` and `read_mask` take any file a user
has, check it, and name it when it is not usable. `decode_image` and `decode_mask` take
what the prepared data sets hold (8-bit RGB JPEG or PNG, 8-bit grey PNG), as fast as
possible: they run for every example of a training run.
"""

import io
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import scipy.io
from PIL import Image, ImageOps

from fcn_jax.data import greys
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.errors import UserError

# Of an image that is read, by its header, before memory is taken for it: 1 GB of RGB.
MAX_PIXELS = 350_000_000
PNG_MAX_SIDE = 1_000_000  # Limits of what OpenCV, with libpng, reads and writes.
PNG_MAX_PIXELS = 1 << 30
# Pillow refuses twice as many by itself, and warns from here on; we refuse.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# What Pillow may take a file for. It knows many more, some of which run other programs.
FORMATS = "BMP GIF JPEG JPEG2000 PNG PPM TIFF WEBP".split()
_ORIENTATION = 0x0112  # Exif tag; 1 is upright.
_BITS_PER_SAMPLE = 258  # TIFF tag.
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's greys of over 8 bits.
# The values of a prepared image are those of the file: no turning by Exif.
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(
    data: bytes,
    name: str,
    *,
    exif: Literal["refuse", "apply"] = "refuse",
    intensity_range: Sequence[float] = (),
) -> np.ndarray:
    """Reads an image file of any kind as RGB; of an animation, the first picture.

    Without a range, greys of 16 or 32 bits are divided by 257, so that 65535 becomes
    255, whatever the largest value of the file is, and floats run from 0 to 1: the same
    value is the same grey in every file. Transparent pixels are laid over white, as
    viewers show them.

    Args:
        data: The file.
        name: Its name, for messages.
        intensity_range: The values that become 0 and 255, of greys of any depth; what
            lies outside is clipped. Colours of 8 bits a channel stay as they are.
        exif: What to do if the Exif data say that the picture is to be turned: "refuse"
            where a mask belongs to the image, since nothing tells whether the mask is
            turned already; else "apply".

    Returns:
        uint8 [h, w, 3].

    Raises:
        UserError: If the file is no image, damaged, too large, or turned and refused,
            or if its values cannot be brought to 0 to 255.
    """
    image = _open(data, name)
    bits = _bits(image, data)
    if _orientation(image) != 1:
        if exif == "refuse":
            raise UserError(
                f"{name} is stored turned: its Exif orientation is "
                f"{_orientation(image)}, and 1 is needed, so that image and mask lie "
                "alike. Save it upright, for example with `mogrify -auto-orient`."
            )
        image = ImageOps.exif_transpose(image)
    if intensity_range:
        if image.mode in (*_WIDE, "F", "L"):
            return _grey(greys.stretch(np.asarray(image), intensity_range, name))
        if bits > 8:  # Of which Pillow reads the upper 8.
            raise UserError(
                f"{name} has {bits} bits a channel in mode {image.mode}; "
                "data.intensity_range is for greys without transparency. Save it as "
                "such, or with 8 bits."
            )
        if image.mode == "LA":
            grey, alpha = (np.asarray(channel) for channel in image.split())
            grey = greys.stretch(grey, intensity_range, name)
            image = Image.fromarray(np.dstack([grey, alpha]))
    if image.mode in _WIDE:
        return _grey(greys.narrow(np.asarray(image), name))
    if image.mode == "F":
        return _grey(greys.quantize(np.asarray(image), name))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def read_mask(
    data: bytes, name: str, label_map: label_map_lib.LabelMap | None = None
) -> np.ndarray:
    """Reads a mask file whose pixel values are class ids, or are mapped to them.

    A palette only gives the ids colours: the values are the palette's indices, unless
    the map is of colours. The values of a file of one bit are 0 and 1. A file .mat is
    one of SBD's.

    Args:
        data: The file.
        name: Its name, for messages.
        label_map: What the values mean; None: they are class ids, 255 void.

    Returns:
        uint8 [h, w].

    Raises:
        UserError: If the file is no image, damaged, has colours or transparency instead
            of ids, values that the map does not have or above 255, or is to be turned
            by its Exif data.
    """
    if name.endswith(".mat"):
        return _read_mat(data, name)
    image = _open(data, name)
    if _orientation(image) != 1:
        raise UserError(
            f"{name} is stored turned: its Exif orientation is {_orientation(image)}, "
            "and a mask's must be 1. Save it upright, without Exif data."
        )
    if label_map is not None and label_map.colours:
        return label_map.apply(_colours(image, name), name)
    if image.mode in ("1", "L", "P"):
        ids = np.array(image).astype(np.uint8)
        return ids if label_map is None else label_map.apply(ids, name)
    if image.mode in _WIDE:
        ids = np.asarray(image)
        if label_map is not None and ids.min() >= 0 and ids.max() <= 65535:
            return label_map.apply(ids, name)
        if ids.min() < 0 or ids.max() > 255:
            bad = ids.min() if ids.min() < 0 else ids.max()
            raise UserError(
                f"{name} holds the value {bad}; the values of a mask are class ids of "
                "0 to 255 (255: no class). Save it with ids in that range."
            )
        return ids.astype(np.uint8)
    raise UserError(
        f"{name} has pixels of mode {image.mode}; a mask has one channel of class ids "
        '(mode "L" or "P"), not colours. Say in data.label_map which colour is which '
        "class, such as #000000:0,#ff0000:1; run_inspect.py --input=FOLDER lists them."
    )


def _colours(image: Image.Image, name: str) -> np.ndarray:
    """Returns a mask's colours, RGB uint8 [h, w, 3]."""
    if image.mode in _WIDE or image.mode == "F":
        raise UserError(
            f"{name} has pixels of mode {image.mode}, but data.label_map has colours; "
            "save the mask in 8-bit colours, or map its values."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            raise UserError(
                f"{name} has transparent pixels, whose class nothing tells; save it "
                "without transparency."
            )
    return np.asarray(image.convert("RGB"))


def _read_mat(data: bytes, name: str) -> np.ndarray:
    """Reads the classes of one of SBD's MATLAB files."""
    try:
        ids = scipy.io.loadmat(io.BytesIO(data))["GTcls"][0]["Segmentation"][0]
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise ValueError(f"{ids.dtype} of {ids.ndim} axes")
    except Exception as error:  # SciPy's reader has no errors of its own.
        raise UserError(
            f"{name} is damaged, or has no uint8 GTcls.Segmentation as SBD's masks "
            f"have ({type(error).__name__}); copy or download it again."
        ) from error
    return ids


def is_plain_rgb_jpeg(data: bytes) -> bool:
    """Tells by its header whether a file that can be read is an 8-bit RGB JPEG.

    Such a file can be stored as it is: `decode_image` reads it as `read_image` does, up
    to rounding. Grey and CMYK files are not such.
    """
    with Image.open(io.BytesIO(data)) as image:
        # MPO is a JPEG file with more pictures, usually previews, after the first.
        return image.format in ("JPEG", "MPO") and image.mode == "RGB"


def encode_png(array: np.ndarray) -> bytes:
    """Returns uint8 [h, w] as a grey or [h, w, 3] as an RGB PNG file.

    The sides may have `PNG_MAX_SIDE` pixels, the whole `PNG_MAX_PIXELS`.
    """
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", array)[1].tobytes()


def decode_image(data: bytes) -> np.ndarray:
    """Returns the uint8 RGB array [h, w, 3] of a prepared image."""
    return _decode(data, _RGB, 3)


def decode_mask(data: bytes) -> np.ndarray:
    """Returns the uint8 class ids [h, w] of a prepared mask."""
    return _decode(data, cv2.IMREAD_UNCHANGED, 2)


def _decode(data: bytes, flags: int, ndim: int) -> np.ndarray:
    # OpenCV raises its own error for no bytes at all, and returns None for bad ones.
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if array is None or array.ndim != ndim or array.dtype != np.uint8:
        kind = "RGB image" if ndim == 3 else "mask"
        raise UserError(
            f"A record of the prepared data set is no 8-bit {kind} ({len(data)} "
            "bytes); delete the prepared data set, so that it is built anew."
        )
    return array


def _open(data: bytes, name: str) -> Image.Image:
    """Returns the whole, decoded image."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if math.prod(image.size) > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        image.load()
    except Image.UnidentifiedImageError as error:
        raise UserError(
            f"{name} ({len(data)} bytes) is not an image of a known format (such as "
            "PNG, JPEG, TIFF). Replace or remove it."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{name} is too large an image ({error}); at most {MAX_PIXELS:,} pixels "
            "are read, since a small file can claim any size. Cut it into parts."
        ) from error
    except Exception as error:  # Damaged files make decoders raise nearly anything.
        raise UserError(
            f"{name} is damaged and cannot be decoded: {error}. Replace or remove it."
        ) from error
    return image


def _bits(image: Image.Image, data: bytes) -> int:
    """Returns the bits of a value in the file, where Pillow may read fewer."""
    if image.format == "PNG":
        return data[24]  # In the header, which always comes first.
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    return 8


def _orientation(image: Image.Image) -> int:
    """Returns 1 to 8; 1 if the file does not say. Needs the image to be loaded."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Damaged Exif data of a sound image turn nothing.
        return 1
    return value if value in range(1, 9) else 1


def check_intensity_range(ends: Sequence[float]) -> None:
    """Raises UserError unless it is empty, or a lower and a higher value."""
    if len(ends) not in (0, 2) or (
        ends and not -math.inf < ends[0] < ends[1] < math.inf
    ):
        raise UserError(
            f"data.intensity_range={tuple(ends)} must be a lower and a higher value, "
            "such as (0, 4095), or () for all that the file's type can hold."
        )


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)
