"""Masks of any encoding: mapped as stated, never guessed."""

import example_folders
import numpy as np
import pytest
from example_folders import CLASSES, SIZES, load, masks_of, pixels, published, save

from fcn_jax.data import label_map
from fcn_jax.errors import UserError


def make_masks(folder, encode, **kwargs):
    """The two-folder example with its masks written in another way."""
    example_folders.make_parallel(folder)
    for name in SIZES:
        save(folder / f"masks/{name}.png", encode(pixels(name)[1]), **kwargs)
    return folder


def lookup(table):
    """Encodes class ids by a table of values or of colours."""
    values = np.zeros((256, *np.shape(next(iter(table.values())))), np.uint8)
    for i, value in table.items():
        values[i] = value
    return lambda ids: values[ids]


COLOURS = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 7), 255: (255, 255, 255)}


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({0: 0, 1: 38, 2: 75, 255: 9}, "0:0,38:1,75:2,9:void"),
        ({0: 1, 1: 2, 2: 3, 255: 0}, "0:void,1-3:0"),
        (COLOURS, "#000000:0,#ff0000:1,#00FF07:2,#ffffff:void"),
    ],
)
def test_masks_are_mapped_as_stated(tmp_path, table, text):
    folder = make_masks(tmp_path / "mine", lookup(table))
    found = masks_of(load(folder, label_map=text))
    for name in SIZES:
        np.testing.assert_array_equal(found[name], pixels(name)[1])
    # The same from a file in the folder, and an RGBA mask without transparency.
    (folder / "map.txt").write_text(text.replace(",", "\n") + "\n\n// the end\n")
    if table is COLOURS:
        for name in SIZES:
            rgb = lookup(table)(pixels(name)[1])
            rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
            save(folder / f"masks/{name}.png", rgba)
    found = masks_of(load(folder, label_map="map.txt"))
    np.testing.assert_array_equal(found["b"], pixels("b")[1])


def test_masks_of_16_bits_are_mapped(tmp_path):
    folder = tmp_path / "mine"
    make_masks(folder, lambda ids: ids.astype(np.uint16) * 200)
    found = masks_of(load(folder, label_map="0:0,200:1,400:2,51000:void"))
    np.testing.assert_array_equal(found["a"], pixels("a")[1])


def test_the_colours_of_the_map_are_the_palette(tmp_path):
    folder = make_masks(tmp_path / "mine", lookup(COLOURS))
    dataset = load(folder, label_map="#000000:0,#ff0000:1,#00ff07:2,#ffffff:void")
    for i, colour in COLOURS.items():
        assert tuple(dataset.palette[i]) == colour


def test_a_labelmap_of_cvat_names_and_maps(tmp_path):
    folder = make_masks(tmp_path / "mine", lookup(COLOURS | {255: (0, 0, 0)}))
    (folder / "classes.txt").unlink()
    (folder / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n"
        "ground:0,0,0::\nroof:255,0,0::\nleaf:0,255,7::\n"
    )
    dataset = load(folder)
    assert dataset.class_names == ("ground", "roof", "leaf")
    expected = np.where(pixels("d")[1] == 255, 0, pixels("d")[1])
    np.testing.assert_array_equal(masks_of(dataset)["d"], expected)
    (folder / "labelmap.txt").write_text("ground:0,0,0::\nroof:256,0,0::\n")
    with pytest.raises(UserError, match=r"Line 2 of .*labelmap.txt"):
        load(folder)


def test_without_a_list_classes_are_counted(parallel):
    (parallel / "classes.txt").unlink()
    dataset = load(parallel)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    ids = np.concatenate([pixels(name)[1].ravel() for name in SIZES])
    counts = sum(split.pixel_counts for split in dataset.splits.values())
    np.testing.assert_array_equal(counts, np.bincount(ids, minlength=256)[:3])


@pytest.mark.parametrize(
    ("encode", "classes", "words"),
    [
        (lookup({0: 0, 1: 255, 2: 255, 255: 0}), "a\nb\n", "data.label_map=0:0,255:1"),
        (lookup({0: 0, 1: 255, 2: 255, 255: 0}), None, "data.label_map=0:0,255:1"),
        (lookup({0: 1, 1: 2, 2: 3, 255: 1}), CLASSES, r"1-3:0 if .* 0:void,1-3:0 if"),
        (lookup({0: 0, 1: 38, 2: 75, 255: 255}), None, "0:0,38:1,75:2,255:void"),
        (lookup(COLOURS), CLASSES, r"colours.*#000000:0.*run_inspect\.py"),
    ],
)
def test_other_encodings_are_not_guessed(tmp_path, encode, classes, words):
    folder = make_masks(tmp_path / "mine", encode)
    (folder / "classes.txt").unlink()
    if classes:
        (folder / "classes.txt").write_text(classes)
    with pytest.raises(UserError, match=words):
        load(folder)
    assert not published(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0:0,9:1", "mine/masks|masks/.*value .* at column .* data.label_map"),
        ("0:0,5:2", "nothing to class 1"),
        ("0:0,0:1", "twice"),
        ("0:0,#00ff00:1", "both grey values and colours"),
        ("9-3:0", "no value, or range"),
        ("70000:0,1:1", "no value, or range"),
        ("0:void", "no class"),
        ("0:0,1-256:0", "'1-256:0', which leads to class 255"),
        ("/dev/zero", "'/dev/zero' cannot be read .it is no file"),
        ("a" * 5000, "aaa.* cannot be read .File name too long"),
        ("0:0,1:x", "'1:x'; write VALUE:ID"),
        ("missing.txt", "'missing.txt' cannot be read"),
        ("0:0,1-9:1", "3 names of classes"),
    ],
)
def test_a_label_map_that_does_not_fit_is_named(parallel, text, words):
    with pytest.raises(UserError, match=words):
        load(parallel, label_map=text)
    assert not published(parallel)


@pytest.mark.parametrize(
    "text",
    [
        "0:0,255:1",
        "0:void,1-150:0",
        "0-9:void,10-12:0,13:0,300-65535:void",
        "#000000:0,#ff0000:1,#ffffff:void",
    ],
)
def test_a_label_map_prints_as_it_was_written(text):
    assert str(label_map.parse(text)) == text
    assert label_map.parse(str(label_map.parse(text))) == label_map.parse(text)


@pytest.mark.parametrize("colours", [False, True])
def test_every_value_is_mapped_as_one_by_one(colours):
    rng = np.random.default_rng(0)
    values = rng.choice(1 << (24 if colours else 16), 200, replace=False).tolist()
    ids = {value: i % 90 if i % 9 else 255 for i, value in enumerate(values)}
    map_ = label_map.LabelMap(ids, colours)
    drawn = rng.choice(values, (30, 40))
    pixels = drawn
    if colours:
        pixels = np.stack([drawn >> 16, drawn >> 8 & 255, drawn & 255], -1)
        pixels = pixels.astype(np.uint8)
    expected = [[ids[value] for value in row] for row in drawn.tolist()]
    np.testing.assert_array_equal(map_.apply(pixels, "x"), expected)
    unknown = next(v for v in range(200, 999) if v not in ids)
    pixels[7, 11] = (0, unknown >> 8, unknown & 255) if colours else unknown
    shown = f"#{unknown:06x}" if colours else unknown
    with pytest.raises(UserError, match=f"m.png .* {shown} at column 11, row 7"):
        map_.apply(pixels, "m.png")


def test_a_table_of_many_colours_is_no_file_name(parallel):
    pairs = [f"#{i:06x}:{i}" for i in range(200)]
    found = label_map.parse(",".join(pairs), parallel)
    assert (found.num_classes, found.colours) == (200, True)


def test_a_colour_that_a_labelmap_lacks_is_named(tmp_path):
    folder = make_masks(tmp_path / "mine", lookup(COLOURS))
    (folder / "classes.txt").unlink()
    (folder / "labelmap.txt").write_text("ground:0,0,0::\nroof:255,0,0::\n")
    with pytest.raises(UserError, match=r"which .*mine/labelmap\.txt does not have"):
        load(folder)
    (folder / "labelmap.txt").write_text("ground:0,0,0::\nroof:0,0,0::\n")
    with pytest.raises(UserError, match="the colour of a line before"):
        load(folder)
    (folder / "labelmap.txt").write_text("\x1b[31m:0,0,0::\nroof:255,0,0::\n")
    with pytest.raises(UserError, match="cannot be printed .'.x1b"):
        load(folder)
