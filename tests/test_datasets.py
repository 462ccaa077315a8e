import io
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from example_folders import (
    CLASSES,
    SIZES,
    arrays,
    load,
    make_parallel,
    make_voc,
    pixels,
    published,
    save,
)
from PIL import Image

from fcn_jax.data import datasets, labels, prepared
from fcn_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent


def test_records_are_the_files_in_the_order_of_the_list(voc):
    dataset = load(voc)
    assert dataset.class_names == ("ground", "house", "tree")
    assert list(dataset.splits) == ["train", "val"]
    for split, names in (("train", "abc"), ("val", "de")):
        source = dataset.split(split).source
        assert [source[i]["name"] for i in range(len(source))] == list(names)
        for record, name in zip(source, names, strict=True):
            for got, wanted in zip(arrays(record), pixels(name), strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_statistics_equal_a_count_pixel_by_pixel(voc):
    split = load(voc).split("train")
    counts, image_counts = [0, 0, 0], [0, 0, 0]
    for name in "abc":
        ids = pixels(name)[1].ravel().tolist()
        labelled = sum(i != 255 for i in ids)
        for c in range(3):
            counts[c] += ids.count(c)
            image_counts[c] += labelled if c in ids else 0
    assert split.pixel_counts.dtype == split.image_pixel_counts.dtype == np.int64
    assert split.pixel_counts.tolist() == counts
    assert split.image_pixel_counts.tolist() == image_counts
    assert image_counts[2] < image_counts[0]  # "c" has no tree.
    assert split.max_size == (12, 9)  # Of two different images.


def test_jpeg_is_stored_as_it_is_and_others_as_png(voc):
    for name, kwargs in (("a", {}), ("b", {"mode": "L"})):
        (voc / f"JPEGImages/{name}.png").unlink()
        image = Image.fromarray(pixels(name)[0]).convert(kwargs.get("mode", "RGB"))
        image.save(voc / f"JPEGImages/{name}.JPG", format="JPEG")
    rgb, grey = list(load(voc).split("train").source)[:2]
    assert rgb["image"] == (voc / "JPEGImages/a.JPG").read_bytes()
    assert grey["image"][:4] == b"\x89PNG"
    got = np.asarray(Image.open(io.BytesIO(grey["image"])))
    wanted = np.asarray(Image.open(voc / "JPEGImages/b.JPG").convert("RGB"))
    np.testing.assert_array_equal(got, wanted)


def test_palette_masks_give_ids_and_the_palette(voc):
    colours = np.arange(768).reshape(256, 3)[::-1].astype(np.uint8)
    for name in SIZES:
        mask = Image.fromarray(pixels(name)[1])
        mask.putpalette(colours.tobytes())
        mask.save(voc / f"SegmentationClass/{name}.png")
    dataset = load(voc)
    np.testing.assert_array_equal(dataset.palette, colours)
    ids = arrays(dataset.split("val").source[0])[1]
    np.testing.assert_array_equal(ids, pixels("d")[1])


def test_grey_masks_get_the_palette_of_voc(voc):
    np.testing.assert_array_equal(load(voc).palette, labels.voc_palette())


def test_list_lines_may_be_blank_or_have_more_words(voc):
    (voc / "ImageSets/Segmentation/train.txt").write_text("\na 1\r\n\n  c\t-1\n\n")
    assert [r["name"] for r in load(voc).split("train").source] == ["a", "c"]


def test_parallel_folders_split_is_stable_and_by_seed(parallel):
    def names(**kwargs):
        dataset = load(parallel, val_fraction=0.4, **kwargs)
        train, val = ({r["name"] for r in s.source} for s in dataset.splits.values())
        assert train | val == set(SIZES) and not train & val
        assert len(val) == 2
        return val

    assert names() == names()
    assert len({frozenset(names(split_seed=seed)) for seed in range(4)}) > 1


def test_parallel_folders_elsewhere(tmp_path):
    outside = make_parallel(tmp_path / "other")
    source = tmp_path / "mine"
    source.mkdir()
    (source / "classes.txt").write_text(CLASSES)
    os.symlink(outside / "masks", source / "labels")
    dataset = load(source, image_dir=str(outside / "images"), mask_dir="labels")
    record = dataset.split("val").source[0]
    np.testing.assert_array_equal(arrays(record)[1], pixels(record["name"])[1])


def test_opens_again_without_building(voc, monkeypatch):
    load(voc)
    monkeypatch.setattr(prepared, "_build", None)
    assert len(load(voc).split("val").source) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda voc: os.utime(voc / "SegmentationClass/a.png", ns=(1, 1)),
        lambda voc: (voc / "classes.txt").write_text(CLASSES + "sea\n"),
        lambda voc: (voc / "ImageSets/Segmentation/val.txt").write_text("e\nd\n"),
    ],
    ids=["time", "classes", "order"],
)
def test_a_change_is_noticed(voc, change):
    load(voc)
    before = len(published(voc))
    change(voc)
    load(voc)
    assert len(published(voc)) == 2 * before


def test_changed_pixels_are_read(voc):
    load(voc)
    save(voc / "SegmentationClass/d.png", np.ones((3, 11), np.uint8))
    assert load(voc).split("val").source[0]["mask"] != b""
    assert arrays(load(voc).split("val").source[0])[1].tolist() == [[1] * 11] * 3


def test_source_whose_path_is_no_utf8(tmp_path):
    source = make_voc(tmp_path / os.fsdecode(b"m\xfcll"))
    assert len(load(source).split("train").source) == 3


def test_folders_of_one_name_do_not_share(tmp_path):
    one, two = make_voc(tmp_path / "1/mine"), make_voc(tmp_path / "2/mine")
    for path in [p for p in one.glob("**/*") if p.is_file()]:
        os.utime(path, ns=(1, 1))
        os.utime(two / path.relative_to(one), ns=(1, 1))
    save(two / "JPEGImages/a.png", np.zeros((7, 9, 3), np.uint8))
    data_dir = str(tmp_path / "prepared")
    first = [
        datasets.load("folder", source=str(s), data_dir=data_dir).split("train")
        for s in (one, two, one)
    ]
    assert [arrays(s.source[0])[0].any() for s in first] == [True, False, True]


def test_source_indexes_and_pickles_small(voc):
    source = load(voc).split("train").source
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 1000
    assert list(copy) == list(source)
    assert source[-1] == source[np.int64(2)]
    with pytest.raises(IndexError):
        source[3]


def test_relative_data_dir(voc, monkeypatch):
    monkeypatch.chdir(voc.parent)
    dataset = datasets.load("folder", source="mine", data_dir="prepared")
    monkeypatch.chdir("/")
    assert len(list(dataset.split("train").source)) == 3
    assert len(load(voc).splits) == 2
    assert len(published(voc)) == 3  # That of the absolute path is the same set.


def test_unknown_names(voc):
    with pytest.raises(UserError, match="shapes, .*voc") as error:
        datasets.load("shape", data_dir="unused")
    assert all(name in str(error.value) for name in datasets.NAMES)
    with pytest.raises(UserError, match='no split "test".* train, val'):
        load(voc).split("test")


def test_killed_build_leaves_nothing_that_is_taken_for_a_set(voc):
    # The build waits in the middle for ever.
    script = """if True:
        import sys, time
        from fcn_jax.data import datasets, images
        real = images.read_image
        def wait(data, name, **kwargs):
            return time.sleep(600) if "b.png" in name else real(data, name, **kwargs)
        images.read_image = wait
        datasets.load("folder", source=sys.argv[1], data_dir=sys.argv[2])
    """
    prepared_dir = voc.parent / "prepared"
    build = subprocess.Popen(
        [sys.executable, "-c", script, voc, prepared_dir],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 60
    while not list(prepared_dir.glob("**/*.array_record*")):
        assert time.time() < deadline and build.poll() is None
        time.sleep(0.02)
    build.send_signal(signal.SIGKILL)
    build.wait()
    (wreck,) = prepared_dir.glob("**/incomplete*")
    assert published(voc) == []

    config = datasets.folder.scan(str(voc))  # The wreck is of this very set.
    assert wreck.parent.name == config.name
    path = prepared.prepare(config, prepared_dir)
    assert not wreck.exists()
    assert [r["name"] for r in prepared.Source(path, "train")] == list("abc")


def test_wrecks_of_other_sets_are_removed_unless_they_are_being_built(voc):
    sets = voc.parent / "prepared" / "segmentation"
    for name in ("killed", "running", "whole"):
        folder = sets / name / ("1.0.0" if name == "whole" else "incomplete.X_1.0.0")
        folder.mkdir(parents=True)
        (folder / "records").write_bytes(b"some")
    with prepared._lock(sets / "running"):
        load(voc)
    left = {p.parent.parent.name for p in sets.glob("*/*/records")}
    assert left == {"running", "whole"}


def test_build_leaves_no_temporary_files(voc, monkeypatch):
    temporary = voc.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    load(voc)
    assert list(temporary.iterdir()) == []


def test_processes_that_start_together_build_once(voc):
    script = (
        "import sys; from fcn_jax.data import datasets, prepared; "
        "build = prepared._build; "
        "prepared._build = lambda *a: (print('built'), build(*a)); "
        "d = datasets.load('folder', source=sys.argv[1], data_dir=sys.argv[2]); "
        "print(len(list(d.split('train').source))); "
        "print({'tensorflow', 'torch', 'jax'} & set(sys.modules))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, voc, voc.parent / "prepared"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    output = sorted(process.communicate(timeout=60)[0] for process in processes)
    assert output == ["3\nset()\n", "built\n3\nset()\n"]


def test_downloaded_voc_opens_without_the_download(voc, tmp_path, monkeypatch):
    def scan(part, source, sbd_source, data_dir):
        assert (source, data_dir) == ("", str(tmp_path / "prepared"))
        return datasets.folder.scan(str(voc))

    monkeypatch.setattr(datasets.voc, "scan", scan)
    first = datasets.load("voc", data_dir=str(tmp_path / "prepared"))
    monkeypatch.setattr(datasets.voc, "scan", None)
    again = datasets.load("voc", data_dir=str(tmp_path / "prepared"))
    assert list(again.split("val").source) == list(first.split("val").source)
