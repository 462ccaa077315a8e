"""People's own folders: what is counted of images, greys, names, links."""

import unicodedata

import example_folders
import numpy as np
import pytest
from example_folders import SIZES, load, save

from fcn_jax.data import examples, images, transforms
from fcn_jax.errors import UserError


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
    dataset = load(voc)
    (note,) = dataset.notes
    assert "1 image(s) of val" in note and "d (a in train)" in note
    assert dataset.duplicates == (("train", "a", "val", "d"),)


def test_other_lists_may_share_images_unless_both_are_wanted(voc):
    lists = voc / "ImageSets/Segmentation"
    (lists / "test-2.txt").write_text("d\na\n")  # One of each of the others.
    dataset = load(voc)
    assert dataset.notes == ()
    assert set(dataset.duplicates) == {
        ("test-2", "a", "train", "a"),
        ("test-2", "d", "val", "d"),
    }
    assert [r["name"] for r in dataset.split("test-2").source] == ["d", "a"]
    (note,) = load(voc, splits=("train", "test-2")).notes
    assert "1 image(s) of train are the same as in test-2" in note


def test_of_many_shared_images_the_first_are_named(monkeypatch):
    monkeypatch.setattr(examples, "MOST_SHARED", 4)
    found = {split: examples.Statistics() for split in ("a", "train", "val")}
    image, ids = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    for split, statistics in found.items():
        for i in range(3 if split == "a" else 6):
            statistics.add(f"{split}{i}", bytes([i]), image, ids)
    shared = examples.shared_images(found)
    assert [(*s["splits"], s["count"], len(s["names"])) for s in shared] == [
        ("train", "val", 6, 4),
        ("a", "train", 3, 1),
        ("a", "val", 3, 1),
    ]
    assert shared[0]["names"][0] == ["train0", "val0"]


def test_images_that_are_nearly_black_are_told(parallel):
    for path in (parallel / "images").iterdir():
        grey = np.asarray(images.Image.open(path))[..., 0].astype(np.uint16)
        save(path, grey * 16)  # Of 12 bits.
    (note,) = load(parallel).notes
    assert "nearly black" in note and "data.intensity_range" in note
    assert load(parallel, intensity_range=(0, 4095)).notes == ()


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


def test_missing_masks_has_two_meanings(parallel):
    with pytest.raises(UserError, match="data.missing_masks='maybe'"):
        load(parallel, missing_masks="maybe")
    assert set(examples.MISSING) == {"absent", "void"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accent_in_a_list_may_be_one_character_or_two(voc, form):
    for kind in ("JPEGImages", "SegmentationClass"):
        name = unicodedata.normalize(form, "für b")
        (voc / kind / "b.png").rename(voc / kind / f"{name}.png")
    (voc / "ImageSets/Segmentation/train.txt").write_text("a\nfür b\n", "utf-8")
    assert load(voc).splits["train"].source[1]["name"] == name


def test_an_unknown_line_is_shown_whole_and_harmless(voc):
    (voc / "ImageSets/Segmentation/train.txt").write_text("no such\x1b[2J\n")
    with pytest.raises(UserError, match=r'"no such.x1b\[2J", but there is no image'):
        load(voc)
