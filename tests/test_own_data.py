"""People's own folders: encodings of masks, many labels, greys, what is counted."""

import io
import zlib

import example_folders
import numpy as np
import pytest
from example_folders import CLASSES, SIZES, arrays, load, pixels, published, save

from fcn_jax.data import datasets, examples, images, label_map, transforms
from fcn_jax.errors import UserError


def masks_of(dataset, num_masks=None):
    """The labels of all records, by name."""
    records = [r for split in dataset.splits.values() for r in split.source]
    return {r["name"]: transforms.decode(r, num_masks)["label"] for r in records}


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
        ("0:0,1:x", "'1:x'; write VALUE:ID"),
        ("missing.txt", "missing.txt cannot be read"),
        ("0:0,1-9:1", "3 names of classes"),
    ],
)
def test_a_label_map_that_does_not_fit_is_named(parallel, text, words):
    with pytest.raises(UserError, match=words):
        load(parallel, label_map=text)
    assert not published(parallel)


@pytest.mark.parametrize(
    "text", ["0:0,255:1", "0:void,1-150:0", "#000000:0,#ff0000:1,#ffffff:void"]
)
def test_a_label_map_prints_as_it_was_written(text):
    assert str(label_map.parse(text)) == text
    assert label_map.parse(str(label_map.parse(text))) == label_map.parse(text)


# Many labels.

NAMES = ("crack", "moss", "rust")


def planes(name, num_masks=3):
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 2, (*SIZES[name], num_masks)).astype(np.uint8)


def make_multilabel(folder, high=255):
    for name in SIZES:
        save(folder / f"images/{name}.png", pixels(name)[0])
        for i, label in enumerate(NAMES):
            save(folder / f"masks/{label}/{name}.png", planes(name)[..., i] * high)
    return folder


@pytest.mark.parametrize("high", [1, 255])
def test_many_labels_are_read_and_counted(tmp_path, high):
    dataset = load(make_multilabel(tmp_path / "mine", high), multilabel=True)
    assert (dataset.class_names, dataset.num_masks) == (NAMES, 3)
    found = masks_of(dataset, 3)
    for name in SIZES:
        np.testing.assert_array_equal(found[name], planes(name))
    counts = sum(split.pixel_counts for split in dataset.splits.values())
    np.testing.assert_array_equal(counts, sum(planes(n).sum((0, 1)) for n in SIZES))
    labelled = sum(split.num_labelled for split in dataset.splits.values())
    assert labelled == sum(planes(n).size for n in SIZES)


def test_lists_and_the_order_of_classes_count_for_many_labels(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    (folder / "classes.txt").write_text("rust\ncrack\nmoss\n")
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nc\n")
    (lists / "val.txt").write_text("e\n")
    dataset = load(folder, multilabel=True)
    assert dataset.class_names == ("rust", "crack", "moss")
    assert [len(s.source) for s in dataset.splits.values()] == [2, 1]
    np.testing.assert_array_equal(
        masks_of(dataset, 3)["e"], planes("e")[..., [2, 0, 1]]
    )


@pytest.mark.parametrize(("setting", "value"), [("absent", 0), ("void", 255)])
def test_a_missing_mask_is_what_was_said(tmp_path, setting, value):
    folder = make_multilabel(tmp_path / "mine")
    (folder / "masks/moss/b.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 images.*b\.png.*missing_masks"):
        load(folder, multilabel=True)
    dataset = load(folder, multilabel=True, missing_masks=setting)
    mask = masks_of(dataset, 3)["b"]
    np.testing.assert_array_equal(mask[..., 1], value)
    np.testing.assert_array_equal(mask[..., 0], planes("b")[..., 0])
    void = planes("b")[..., 1].size if setting == "void" else 0
    labelled = sum(split.num_labelled for split in dataset.splits.values())
    assert labelled == sum(planes(n).size for n in SIZES) - void


@pytest.mark.parametrize(
    ("values", "text", "words"),
    [
        ((0, 7), "", "values 0, 7.*data.label_map"),
        ((0, 1, 255), "", "values 0, 1, 255"),
        ((0, 128, 255), "0:0,255:1", "value 128"),
        ((0, 128, 255), "0:0,128:2,255:1", "values 0, 1, 2"),
    ],
)
def test_a_mask_of_other_values_is_not_guessed(tmp_path, values, text, words):
    folder = make_multilabel(tmp_path / "mine")
    mask = np.resize(np.array(values, np.uint8), SIZES["c"])
    save(folder / "masks/rust/c.png", mask)
    with pytest.raises(UserError, match=words):
        load(folder, multilabel=True, label_map=text)
    assert not published(folder)


def test_a_stated_void_counts_for_nothing(tmp_path):
    folder = make_multilabel(tmp_path / "mine")
    mask = np.resize(np.array([0, 128, 255], np.uint8), SIZES["c"])
    save(folder / "masks/rust/c.png", mask)
    dataset = load(folder, multilabel=True, label_map="0:0,128:void,255:1")
    found = masks_of(dataset, 3)["c"][..., 2]
    np.testing.assert_array_equal(found, np.array([0, 255, 1])[mask // 127])


@pytest.mark.parametrize("num_masks", [1, 2, 5, 30])
def test_many_masks_are_cropped_and_turned_like_one(num_masks):
    rng = np.random.default_rng(0)
    one = rng.choice([0, 1, 255], (23, 31)).astype(np.uint8)
    image = rng.integers(0, 256, (23, 31, 3), np.uint8)
    encoded = images.encode_png(image)
    single = {"image": encoded, "mask": images.encode_png(one), "name": "x"}
    many = single | {"mask": images.encode_png(np.tile(one, (num_masks, 1)))}
    for seed in range(4):
        kwargs = {"crop": (16, 40), "scale": (0.7, 1.6)}
        expected = transforms.Augment(**kwargs)(single, np.random.default_rng(seed))
        found = transforms.Augment(**kwargs, num_masks=num_masks)(
            many, np.random.default_rng(seed)
        )
        np.testing.assert_array_equal(found["image"], expected["image"])
        assert found["label"].shape == (16, 40, num_masks)
        for i in range(num_masks):
            np.testing.assert_array_equal(found["label"][..., i], expected["label"])


def test_many_labels_are_for_folders_alone(tmp_path):
    with pytest.raises(UserError, match="task=multilabel is for data.name=folder"):
        datasets.load("shapes", data_dir=str(tmp_path), multilabel=True)


# What is counted of images.


def test_mean_and_deviation_are_those_of_all_pixels(parallel):
    for split in load(parallel).splits.values():
        rows = [transforms.decode(r)["image"].reshape(-1, 3) for r in split.source]
        rows = np.concatenate(rows).astype(float)
        np.testing.assert_allclose(split.mean, rows.mean(0), rtol=1e-9)
        np.testing.assert_allclose(split.std, rows.std(0), rtol=1e-9)


def test_images_that_splits_share_are_told(voc):
    data = (voc / "JPEGImages/a.png").read_bytes()
    (voc / "JPEGImages/d.png").write_bytes(data)
    ids = np.zeros(SIZES["a"], np.uint8)
    save(voc / "SegmentationClass/d.png", ids)
    (note,) = load(voc).notes
    assert "1 image(s) of val" in note and "d (a in train)" in note


def test_links_out_of_the_folder_are_told(voc, tmp_path):
    outside = tmp_path / "outside.png"
    (voc / "JPEGImages/a.png").rename(outside)
    (voc / "JPEGImages/a.png").symlink_to(outside)
    (note,) = load(voc).notes
    assert "1 file(s) are links that lead out" in note and "JPEGImages/a.png" in note
    assert load(voc).splits["train"].source[0]["name"] == "a"
    outside.unlink()
    with pytest.raises(UserError, match="a.png"):
        load(voc)


def test_names_with_spaces_and_letters_of_all_kinds(tmp_path):
    folder = example_folders.make_voc(tmp_path / "mine")
    for kind in ("JPEGImages", "SegmentationClass"):
        (folder / kind / "b.png").rename(folder / kind / "Foto 2 – Grün 緑.png")
    (folder / "ImageSets/Segmentation/train.txt").write_text(
        "a 1\nFoto 2 – Grün 緑\nc -1\n", "utf-8"
    )
    names = [r["name"] for r in load(folder).splits["train"].source]
    assert names == ["a", "Foto 2 – Grün 緑", "c"]


def test_a_name_with_a_line_break_is_refused_in_one_line(parallel):
    for kind in ("images", "masks"):
        (parallel / kind / "a.png").rename(parallel / kind / "a\nb.png")
    with pytest.raises(UserError, match=r"a\\nb\.png.*rename") as error:
        load(parallel)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.uint8])
def test_an_intensity_range_becomes_0_to_255(dtype):
    values = np.array([[0, 100, 150], [200, 240, 255]], dtype)
    buffer = io.BytesIO()
    images.Image.fromarray(values).save(buffer, "tiff")
    found = images.read_image(buffer.getvalue(), "x", intensity_range=(100, 200))
    expected = np.clip((values.astype(float) - 100) * 2.55, 0, 255)
    np.testing.assert_allclose(found[..., 0], expected, atol=0.5)
    assert (found == found[..., :1]).all()


def test_the_intensity_range_makes_another_set(parallel):
    before = load(parallel, intensity_range=())
    grey = np.linspace(0, 200, 63).reshape(7, 9).astype(np.uint16)
    save(parallel / "images/a.png", grey)
    found = load(parallel, intensity_range=(0, 200))
    records = [r for s in found.splits.values() for r in s.source]
    image, _ = arrays(next(r for r in records if r["name"] == "a"))
    np.testing.assert_allclose(image[..., 0], grey * 1.275, atol=0.51)
    assert len(before.splits["train"].source) == len(found.splits["train"].source)
    with pytest.raises(UserError, match=r"data.intensity_range=\(9, 3\)"):
        load(parallel, intensity_range=(9, 3))


def test_an_image_that_claims_a_huge_size_is_refused_by_its_header():
    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big") * 2
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    bomb += chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    for read in (images.read_image, images.read_mask):
        with pytest.raises(UserError, match="bomb.png is too large an image"):
            read(bomb, "bomb.png")


def test_missing_masks_has_two_meanings(parallel):
    with pytest.raises(UserError, match="data.missing_masks='maybe'"):
        load(parallel, missing_masks="maybe")
    assert set(examples.MISSING) == {"absent", "void"}
