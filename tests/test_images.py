import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fcn_jax import errors
from fcn_jax.data import images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
IDS = RNG.choice(np.array([0, 1, 7, 20, 255], np.uint8), (13, 17))


def smooth(height=40, width=60):
    """JPEG files lose noise, but little of this."""
    y, x = np.mgrid[:height, :width].astype(float)
    channels = [4 * x, 255 - 5 * y, 127 + 100 * np.sin(x / 9 + y / 7)]
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)


def save(image, kind="png", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey3(array):
    return np.stack([array] * 3, -1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(save(GREY), grey3(GREY), id="L"),
        pytest.param(save(COLOR), COLOR, id="RGB"),
        pytest.param(save(COLOR, "bmp"), COLOR, id="bmp"),
        pytest.param(save(COLOR, "webp", lossless=True), COLOR, id="webp"),
        pytest.param(
            save(Image.fromarray(GREY > 99)), grey3(255 * (GREY > 99)), id="1"
        ),
    ],
)
def test_read_image_eight_bits(data, expected):
    image = images.read_image(data, "x")
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, expected)


def over_white(color, alpha):
    alpha = alpha[..., None] / 255
    return color * alpha + 255 * (1 - alpha)


def test_transparency_is_laid_over_white():
    alpha = np.tile(np.array([0, 128, 255, 60, 7], np.uint8), 100)[:221].reshape(13, 17)
    image = images.read_image(save(np.dstack([COLOR, alpha])), "x")
    np.testing.assert_allclose(image, over_white(COLOR, alpha), atol=1)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    image = images.read_image(save(grey), "x")
    np.testing.assert_allclose(image, over_white(grey3(GREY), alpha), atol=1)


def test_palette_with_and_without_transparency():
    palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    indexed = Image.fromarray(IDS).convert("L")
    indexed.putpalette(palette.tobytes())
    image = images.read_image(save(indexed), "x")
    np.testing.assert_array_equal(image, palette[IDS])
    image = images.read_image(save(indexed, transparency=7), "x")
    expected = np.where((IDS == 7)[..., None], 255, palette[IDS])
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff, big endian", "tiff, 32 bits"])
def test_wide_greys_run_from_0_to_65535(kind):
    values = np.array([[0, 1, 128, 129, 257, 4095, 32768, 65406, 65407, 65535]])
    array = values.astype(np.uint16)
    if kind == "tiff, big endian":
        data = save(Image.frombytes("I;16B", (10, 1), array.astype(">u2")), "tiff")
    elif kind == "tiff, 32 bits":
        data = save(values.astype(np.int32), "tiff")
    else:
        data = save(array, kind)
    expected = [[round(v / 65535 * 255) for v in values[0]]]
    np.testing.assert_array_equal(images.read_image(data, "x"), grey3(expected))


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_of_more_than_16_bits_are_refused(value):
    with pytest.raises(errors.UserError, match=f"far.tif holds values .*{value}"):
        images.read_image(save(np.array([[0, value]], np.int32), "tiff"), "far.tif")


def test_floats_run_from_0_to_1():
    data = save(np.array([[0, 0.1, 0.5, 1]], np.float32), "tiff")
    expected = grey3([[0, 26, 128, 255]])
    np.testing.assert_array_equal(images.read_image(data, "x"), expected)
    for bad in (1.5, -0.1, np.nan):
        data = save(np.array([[0, bad]], np.float32), "tiff")
        with pytest.raises(errors.UserError, match=r"f\.tif holds floats"):
            images.read_image(data, "f.tif")


def test_sixteen_bit_colours_in_png():
    values = RNG.integers(0, 65536, (5, 4, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body)
        for kind, body in (
            (b"IHDR", struct.pack(">2I5B", 4, 5, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
    image = images.read_image(data, "x")
    assert np.abs(image - values / 257).max() <= 1


def test_cmyk_jpeg():
    data = save(Image.fromarray(smooth()).convert("CMYK"), "jpeg", quality=95)
    difference = np.abs(images.read_image(data, "x").astype(int) - smooth())
    assert difference.mean() < 2


def turn(array, orientation):
    """The Exif standard's table: which picture a stored one stands for."""
    steps = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }
    return steps[orientation](array)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(smooth(), kind, exif=exif)
    upright = images.read_image(data, "x", exif="apply")
    stored = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(upright, turn(stored, orientation))
    if orientation == 1:
        np.testing.assert_array_equal(images.read_image(data, "x"), stored)
    else:
        match = f"turned.jpg is stored turned: .* {orientation},"
        with pytest.raises(errors.UserError, match=match):
            images.read_image(data, "turned.jpg")
        mask = save(IDS, exif=exif)
        with pytest.raises(errors.UserError, match="m.png is stored turned"):
            images.read_mask(mask, "m.png")
    # Prepared images are never turned.
    assert images.decode_image(data).shape == stored.shape


def test_meaningless_exif_turns_nothing():
    exif = Image.Exif()
    exif[0x0112] = 9
    for bad in (exif, b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        image = images.read_image(save(COLOR, exif=bad), "x")
        np.testing.assert_array_equal(image, COLOR)


def indexed(ids):
    image = Image.fromarray(ids)
    image.putpalette(RNG.integers(0, 256, 768, dtype=np.uint8).tobytes())
    return image


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save(IDS), id="L"),
        pytest.param(save(indexed(IDS)), id="P"),
        pytest.param(save(indexed(IDS), transparency=0), id="P, transparent"),
        pytest.param(save(IDS.astype(np.uint16)), id="16 bits"),
        pytest.param(save(IDS.astype(np.int32), "tiff"), id="32 bits"),
        pytest.param(save(IDS, "tiff"), id="tiff"),
    ],
)
def test_read_mask(data):
    mask = images.read_mask(data, "x")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, IDS)


def test_read_mask_of_few_bits():
    ids = RNG.integers(0, 4, (13, 17), dtype=np.uint8)
    two = save(indexed(ids), bits=2)
    np.testing.assert_array_equal(images.read_mask(two, "x"), ids)
    one = save(Image.fromarray(ids > 1))
    np.testing.assert_array_equal(images.read_mask(one, "x"), ids > 1)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "png"), ("RGBA", "png"), ("LA", "png"), ("F", "tiff")]
)
def test_read_mask_refuses_colours(mode, kind):
    data = save(Image.new(mode, (4, 3)), kind)
    with pytest.raises(errors.UserError, match=f"m.png has pixels of mode {mode}"):
        images.read_mask(data, "m.png")


def test_read_mask_refuses_wide_ids():
    with pytest.raises(errors.UserError, match=r"m\.png holds the value 1000"):
        images.read_mask(save(np.array([[3, 1000]], np.uint16)), "m.png")
    with pytest.raises(errors.UserError, match=r"m\.tif holds the value -1"):
        images.read_mask(save(np.array([[3, -1]], np.int32), "tiff"), "m.tif")


@pytest.mark.parametrize("read", [images.read_image, images.read_mask])
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "tiff"])
def test_every_truncation_is_named(read, kind):
    data = save(smooth()[..., 0], kind)
    # The last bytes of a file may be more than its pixels need.
    for length in range(0, len(data) // 2, max(1, len(data) // 60)):
        with pytest.raises(errors.UserError, match="folder/cut"):
            read(data[:length], "folder/cut")


def test_damaged_bytes_raise_nothing_else():
    for kind in ("png", "jpeg", "gif", "tiff", "webp", "bmp"):
        data = save(smooth(), kind)
        for _ in range(60):
            bad = bytearray(data)
            for position in RNG.integers(0, min(len(bad), 400), 3):
                bad[position] = RNG.integers(256)
            try:
                images.read_image(bytes(bad), "bad")
            except errors.UserError as error:
                assert "bad" in str(error)


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(errors.UserError, match=r"huge\.png is too large"):
        images.read_image(save(GREY), "huge.png")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_plain_rgb_jpeg(mode):
    image = Image.fromarray(smooth()).convert(mode)
    assert images.is_plain_rgb_jpeg(save(image, "jpeg")) == (mode == "RGB")
    if mode != "CMYK":
        assert not images.is_plain_rgb_jpeg(save(image, "png"))


@pytest.mark.parametrize(
    "options",
    [{"subsampling": kind} for kind in ("4:4:4", "4:2:2", "4:2:0")]
    + [{"progressive": True}, {"keep_rgb": True}],
)
def test_decoders_agree_about_jpeg(options):
    data = save(smooth(61, 83), "jpeg", quality=90, **options)
    assert images.is_plain_rgb_jpeg(data)
    fast = images.decode_image(data).astype(int)
    assert np.abs(fast - images.read_image(data, "x")).max() <= 4


def test_decode_returns_what_was_encoded():
    np.testing.assert_array_equal(images.decode_image(images.encode_png(COLOR)), COLOR)
    np.testing.assert_array_equal(images.decode_mask(images.encode_png(IDS)), IDS)
    for array, mode in ((COLOR, "RGB"), (IDS, "L")):
        image = Image.open(io.BytesIO(images.encode_png(array)))
        assert (image.format, image.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.array(image), array)


@pytest.mark.parametrize("data", [b"", b"nothing", save(smooth())[:60]])
@pytest.mark.parametrize("decode", [images.decode_image, images.decode_mask])
def test_decode_never_returns_none(decode, data):
    with pytest.raises(errors.UserError, match="delete the prepared data set"):
        decode(data)


def test_decode_mask_refuses_colours():
    with pytest.raises(errors.UserError, match="no 8-bit mask"):
        images.decode_mask(save(indexed(IDS)))
