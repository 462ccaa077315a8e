"""Image files that lie, that claim the earth, or that no image reader should open."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from fcn_jax import errors
from fcn_jax.data import images

SIDE = 60_000


def made(kind):
    buffer = io.BytesIO()
    Image.new("L", (4, 3)).save(buffer, kind)
    return bytearray(buffer.getvalue())


def claim(kind):
    """A small file whose header claims 60000 pixels in either direction."""
    data = made(kind)
    if kind == "png":
        data[16:24] = struct.pack(">2I", SIDE, SIDE)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "bmp":
        data[18:26] = struct.pack("<2i", SIDE, SIDE)
    elif kind == "gif":
        data[6:10] = struct.pack("<2H", SIDE, SIDE)
    elif kind == "jpeg":
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">2H", SIDE, SIDE)
    elif kind == "tiff":
        (offset,) = struct.unpack("<I", data[4:8])
        (count,) = struct.unpack("<H", data[offset : offset + 2])
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            if struct.unpack("<H", data[entry : entry + 2])[0] in (256, 257):
                data[entry + 8 : entry + 12] = struct.pack("<I", SIDE)
    return bytes(data)


@pytest.mark.parametrize("read", [images.read_image, images.read_mask])
@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "jpeg", "tiff"])
def test_a_claimed_size_is_refused_before_memory_is_taken(read, kind):
    data = claim(kind)
    tracemalloc.start()
    try:
        with pytest.raises(
            errors.UserError, match=r"bomb is too large an image.*parts"
        ):
            read(data, "bomb")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_counts_pixels(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 12)
    assert images.read_image(bytes(made("png")), "x").shape == (3, 4, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 11)
    with pytest.raises(errors.UserError, match="x is too large an image .4x3 pixels"):
        images.read_image(bytes(made("png")), "x")


@pytest.mark.parametrize("kind", ["eps", "pdf", "ico", "pcx"])
def test_other_formats_under_a_known_ending_are_not_opened(kind):
    buffer = io.BytesIO()
    Image.new("L", (16, 16)).save(buffer, kind)
    with pytest.raises(errors.UserError, match=r"a\.png .* not an image of a known"):
        images.read_image(buffer.getvalue(), "a.png")


def test_an_uncompressed_text_in_a_png_is_limited():
    text = zlib.compress(bytes(200_000_000), 9)
    body = b"zTXtkey\0\0" + text
    chunk = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    )
    data = made("png")
    data[33:33] = chunk
    with pytest.raises(errors.UserError, match=r"text\.png is damaged"):
        images.read_image(bytes(data), "text.png")


def test_values_stay_those_of_the_file_under_any_name():
    # The content tells the format, not the ending.
    buffer = io.BytesIO()
    Image.fromarray(np.array([[3, 200]], np.uint8)).save(buffer, "tiff")
    assert images.read_mask(buffer.getvalue(), "a.png").tolist() == [[3, 200]]
