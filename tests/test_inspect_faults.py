"""Folders that training would refuse: every fault is found, none stops the others."""

import os
import struct
import warnings
import zlib

import cv2
import example_runs
import numpy as np
import pytest
from example_folders import save
from example_inspections import NAMES, ids_of, image_of, kinds, look, make
from PIL import Image

from fcn_jax.errors import UserError
from fcn_jax.inspection import record, report, samples


def bomb():
    """A PNG of some hundred bytes that claims 60000x60000 pixels."""

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def add(folder, name, ids=None, image=None):
    save(folder / f"images/{name}.png", image_of("q") if image is None else image)
    save(folder / f"masks/{name}.png", ids_of("a") if ids is None else ids)


def make_broken(folder):
    make(folder, classes="a b c")
    add(folder.parent, "secret")
    (folder / "masks/a.png").unlink()
    (folder / "images/b.png").unlink()
    data = (folder / "images/c.png").read_bytes()
    (folder / "images/c.png").write_bytes(data[: len(data) // 2])
    (folder / "images/d.png").write_bytes(bomb())
    add(folder, "small", ids=ids_of("a").T)
    add(folder, "with space ünï")
    add(folder, "new\nline", image=image_of("r"))
    stray = ids_of("a")
    stray[0, 0] = 77
    for letter in "ghij":
        add(folder, letter, image=image_of(letter))
    add(folder, "stray", ids=stray, image=image_of("s"))
    add(folder, "link", image=image_of("t"))
    (folder / "images/link.png").unlink()
    (folder / "images/link.png").symlink_to("../../images/secret.png")
    add(folder, "none")
    (folder / "images/none.png").unlink()
    (folder / "images/none.png").symlink_to("nowhere.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image_of("x")).save(folder / "images/turned.jpg", exif=exif)
    save(folder / "masks/turned.png", ids_of("a"))
    return folder


EXPECTED = {
    "image_without_mask": ["images/a.png"],
    "mask_without_image": ["masks/b.png"],
    "unreadable": ["images/c.png", "images/none.png"],
    "bomb": ["images/d.png (3600000000 pixels)"],
    "turned": ["images/turned.jpg"],
    "size_mismatch": ["masks/small.png (8x10 for 10x8; turned by 90 degrees?)"],
    "link_out": ["images/link.png"],
    "bad_name": ["images/new\nline.png", "masks/new\nline.png"],
    "duplicate_within": [
        "images/link.png = images/small.png = images/with space ünï.png"
    ],
    "unknown_value": ["masks/stray.png: 77"],
}


def test_all_faults_are_found_at_once(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = look(make_broken(tmp_path / "mine"))
    assert kinds(found) == EXPECTED
    assert not found.ok
    text = report.text(found)
    assert "1 image without a mask: images/a.png" in text
    assert r"images/new\nline.png" in text
    assert "Once what must be mended" in text
    # What is sound is shown all the same.
    sheet = samples.draw(found, 24)
    assert {path.name for path in record.save(found, sheet)} == {
        "inspect.json",
        "contact_sheet.png",
    }


def test_lists(tmp_path):
    for name in NAMES:
        save(tmp_path / f"mine/JPEGImages/{name}.png", image_of(name))
        save(tmp_path / f"mine/SegmentationClass/{name}.png", ids_of(name))
    save(tmp_path / "mine/JPEGImages/e.png", image_of("a"))
    save(tmp_path / "mine/JPEGImages/lonely.png", image_of("l"))
    lists = tmp_path / "mine/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb 1\nb\nc.png\n../../../etc/passwd\nlonely\nx")
    (lists / "val.txt").write_text("d\ne\na\n")
    (lists / "bad name.txt").write_text("a\n")
    found = look(tmp_path / "mine")
    assert kinds(found) == {
        "bad_list": ["ImageSets/Segmentation/bad name.txt"],
        "listed_twice": ["train.txt: b"],
        "leads_out": ["train.txt: ../../../etc/passwd"],
        "listed_with_ending": ["train.txt: c.png"],
        "image_without_mask": ["lonely"],
        "listed_without_files": ["x"],
        "not_listed": ["c", "f"],
        "duplicate_across": ["JPEGImages/a.png (train, val) = JPEGImages/e.png (val)"],
        "overlap": ["a (train, val)"],
    }
    (lists / "val.txt").unlink()
    assert "no_lists" in kinds(look(tmp_path / "mine"))


@pytest.mark.parametrize("colours", [False, True])
def test_smoothed_masks(tmp_path, colours):
    palette = np.array([[0, 0, 0], [255, 9, 0], [0, 200, 255]], np.uint8)

    folder = tmp_path / "mine"
    for name in NAMES:
        large = np.kron(ids_of(name), np.ones((8, 8), np.uint8))
        sharp = palette[large] if colours else (large > 0) * np.uint8(255)
        mask = cv2.GaussianBlur(sharp, (5, 5), 1)
        add(folder, name, mask, np.kron(image_of(name), np.ones((8, 8, 1), np.uint8)))
    found = look(folder)
    assert "antialiased" in kinds(found)
    (message,) = kinds(found)["antialiased"]
    assert "most frequent" in message and "% of the pixels" in message
    assert found.meant.reading is None and "Values of the masks" in report.text(found)
    assert samples.draw(found, 4) is not None


def test_masks_in_jpeg(tmp_path):
    folder = make(tmp_path / "mine", lambda ids: ids * 100)
    for name in NAMES:
        path = folder / f"masks/{name}.png"
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    assert len(kinds(look(folder))["jpeg_mask"]) == 6


def test_masks_of_several_kinds(tmp_path):
    folder = make(tmp_path / "mine")
    save(folder / "masks/a.png", np.repeat(ids_of("a")[..., None], 3, -1))
    save(folder / "masks/b.png", np.dstack([ids_of("b")] * 4))
    found = look(folder)
    assert kinds(found)["mixed_masks"] == ["masks/a.png", "masks/b.png"]
    assert kinds(found)["transparent"] == ["masks/b.png"]
    # A few greys among colours are colours that were saved sparingly.
    palette = np.array([[0, 0, 0], [250, 10, 0], [0, 0, 9]], np.uint8)
    folder = make(tmp_path / "other", lambda ids: palette[ids])
    save(folder / "masks/a.png", np.zeros((8, 10), np.uint8))
    indexed = Image.fromarray(ids_of("b"))
    indexed.putpalette(palette.tobytes())
    indexed.save(folder / "masks/b.png")
    found = look(folder)
    assert found.ok and len(found.meant.names) == 3
    assert found.table.rows[0].pixels["all"] == 80 + 5 * 52


def test_masks_of_0_and_1_beside_masks_of_0_and_255(tmp_path):
    folder = make(tmp_path / "mine", lambda ids: (ids > 0) * np.uint8(1))
    save(folder / "masks/a.png", (ids_of("a") > 0) * np.uint8(255))
    found = look(folder)
    assert found.meant.reading.label_map == "0-1:0,255:1"
    assert found.ok and "mixed_binary" in kinds(found)


def test_palettes_that_differ(tmp_path):
    folder = make(tmp_path / "mine")
    for name, red in (("a", 255), ("b", 255), ("c", 0)):
        indexed = Image.fromarray(ids_of(name))
        indexed.putpalette([0, 0, 0, red, 0, 0, 9, 9, 9])
        indexed.save(folder / f"masks/{name}.png")
    assert kinds(look(folder))["palettes"] == ["masks/c.png"]


def test_folders_that_are_no_data_set(tmp_path):
    found = look(make(tmp_path / "mine") / "images")
    assert list(kinds(found)) == ["no_layout"]
    assert "Arrange the folder first" in report.text(found)
    folder = make(tmp_path / "other")
    for name in NAMES:
        (folder / f"masks/{name}.png").rename(folder / f"masks/{name}_mask.png")
    found = look(folder)
    assert found.findings.sorted()[0].kind == "affix"
    assert '"_mask"' in found.findings.sorted()[0].remedy
    with pytest.raises(UserError, match="does not exist"):
        look(tmp_path / "nowhere")
    with pytest.raises(UserError, match="intensity_range"):
        look(folder, intensity_range=(5.0, 5.0))


def test_multilabel_faults(tmp_path):
    for name in NAMES:
        save(tmp_path / f"mine/images/{name}.png", image_of(name))
        save(tmp_path / f"mine/masks/water/{name}.png", ids_of(name) * 100)
    save(tmp_path / "mine/masks/water/z.png", ids_of("z"))
    (tmp_path / "mine/classes.txt").write_text("water\nfire\n")
    found = look(tmp_path / "mine")
    assert kinds(found)["mask_without_image"] == ["masks/water/z.png"]
    assert kinds(found)["classes"] == ["fire has no folder of masks"]
    assert "antialiased" in kinds(found)


def test_the_script(tmp_path):
    folder = make(tmp_path / "good one")
    out = tmp_path / "out"
    done = example_runs.run(
        "run_inspect.py", f"--input={folder}", f"--output={out}", "--num_shown=2"
    )
    assert done.returncode == 0, done.stderr
    assert f"'--config.data.source={folder}'" in done.stdout
    assert sorted(os.listdir(out)) == ["contact_sheet.png", "inspect.json"]
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width <= 1800
    broken = make_broken(tmp_path / "mine")
    done = example_runs.run("run_inspect.py", f"--input={broken}", f"--output={out}")
    assert done.returncode == 1 and "Must be mended" in done.stdout
    assert "Traceback" not in done.stderr
    (tmp_path / "file").write_text("")
    done = example_runs.run(
        "run_inspect.py", f"--input={folder}", f"--output={tmp_path / 'file'}"
    )
    assert done.returncode == 1 and done.stderr.count("Error:") == 1
    assert "Traceback" not in done.stderr
