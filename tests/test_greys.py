"""Greys of any depth, and the values that were said to be black and white."""

import io
import struct
import zlib

import example_folders
import numpy as np
import pytest
from example_folders import arrays, load, save
from PIL import Image

from fcn_jax import errors
from fcn_jax.data import images


def encode(array, kind="tiff"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def wide_png(values):
    """A PNG of 16 bits a channel, of 2 (grey, alpha) or 3 channels."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour_type = {2: 4, 3: 2}[channels]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        data += struct.pack(">I", len(body)) + kind + body + crc
    return data


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.int32, np.float32])
def test_an_intensity_range_becomes_0_to_255(dtype):
    values = np.array([[0, 100, 150], [200, 240, 255]], dtype)
    if dtype == ">u2":
        big = Image.frombytes("I;16B", (3, 2), values.tobytes())
        buffer = io.BytesIO()
        big.save(buffer, "tiff")
        assert buffer.getvalue()[:2] == b"MM"
        data = buffer.getvalue()
    else:
        data = encode(values)
    found = images.read_image(data, "x", intensity_range=(100, 200))
    expected = np.clip((values.astype(float) - 100) * 2.55, 0, 255)
    np.testing.assert_allclose(found[..., 0], expected, atol=0.5)
    assert (found == found[..., :1]).all()


def test_a_range_of_large_numbers_is_exact():
    start = 1 << 30
    values = start + np.arange(0, 52, 10, dtype=np.int32)[None]
    found = images.read_image(encode(values), "x", intensity_range=(start, start + 51))
    np.testing.assert_array_equal(found[0, :, 0], [0, 50, 100, 150, 200, 250])


def test_a_range_of_greys_with_transparency():
    grey, alpha = np.array([[0, 100, 150, 200, 255]] * 2), np.array([[255], [51]])
    data = encode(np.dstack([grey, grey * 0 + alpha]).astype(np.uint8), "png")
    found = images.read_image(data, "x", intensity_range=(100, 200))[..., 0]
    opaque = np.clip((grey - 100) * 2.55, 0, 255)
    expected = opaque * (alpha / 255) + 255 * (1 - alpha / 255)
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize(("channels", "mode"), [(2, "RGBA|LA"), (3, "RGB")])
def test_a_range_is_not_passed_over_for_wide_colours(channels, mode):
    data = wide_png(np.full((3, 4, channels), 4095))
    assert images.read_image(data, "w.png").shape == (3, 4, 3)
    with pytest.raises(errors.UserError, match=f"w.png has 16 bits .* mode ({mode})"):
        images.read_image(data, "w.png", intensity_range=(0, 4095))
    eight = encode(np.full((3, 4, 3), 9, np.uint8), "png")
    found = images.read_image(eight, "x", intensity_range=(0, 4095))
    np.testing.assert_array_equal(found, 9)


def test_what_is_out_of_range_is_told_the_setting():
    for values in (np.float32([[0, 300]]), np.int32([[0, 70000]])):
        with pytest.raises(errors.UserError, match="say in data.intensity_range"):
            images.read_image(encode(values), "x")
        found = images.read_image(encode(values), "x", intensity_range=(0, 300))
        assert found[0, :, 0].tolist() == [0, 255]
    with pytest.raises(errors.UserError, match="no numbers"):
        images.read_image(encode(np.float32([[np.nan]])), "x", intensity_range=(0, 1))


@pytest.mark.parametrize(
    "ends", [(9, 3), (0,), (0, 1, 2), (0, float("nan")), (0, float("inf")), (1, 1)]
)
def test_a_range_that_is_none_is_named(parallel, ends):
    with pytest.raises(errors.UserError, match=r"data.intensity_range=\("):
        load(parallel, intensity_range=ends)


def test_the_range_makes_another_set(parallel):
    before = load(parallel)
    grey = np.linspace(0, 200, 63).reshape(7, 9).astype(np.uint16)
    save(parallel / "images/a.png", grey)
    found = load(parallel, intensity_range=(0, 200))
    records = [r for s in found.splits.values() for r in s.source]
    assert len(records) == len(example_folders.SIZES)
    image, _ = arrays(next(r for r in records if r["name"] == "a"))
    np.testing.assert_allclose(image[..., 0], grey * 1.275, atol=0.51)
    assert len(before.splits["train"].source) == len(found.splits["train"].source)
