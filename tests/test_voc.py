import io
import itertools
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from fcn_jax import download, errors
from fcn_jax.data import datasets, files, labels, voc

SPLITS = {
    "train": ["2007_000032", "2007_000039"],
    "val": ["2011_003276"],
    "trainval": ["2007_000032", "2007_000039", "2011_003276"],
}
SIZES = {"2007_000032": (30, 50), "2007_000039": (37, 41), "2011_003276": (52, 20)}


def truth(name):
    """Each mask has an object, a void rim as in VOC, and ids of its own."""
    height, width = SIZES[name]
    ids = np.zeros((height, width), np.uint8)
    ids[5:20, 4:16] = 255
    ids[6:19, 5:15] = {"2007_000032": 1, "2007_000039": 20, "2011_003276": 15}[name]
    return ids


def color(name):
    y, x = np.mgrid[: SIZES[name][0], : SIZES[name][1]]
    return np.stack([4 * x, 4 * y, 255 - 4 * x], -1).clip(0, 255).astype(np.uint8)


def palette():
    """VOC's, from its definition: bit i of channel c is bit 3 i + c, mirrored."""
    colors = []
    for index in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colors += channels
    return colors


@pytest.fixture
def root(tmp_path):
    """The true layout, with the parts that are not for segmentation."""
    root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for name in (
        "Annotations",
        "ImageSets/Main",
        "ImageSets/Segmentation",
        "JPEGImages",
        "SegmentationClass",
        "SegmentationObject",
    ):
        (root / name).mkdir(parents=True)
    for split, names in SPLITS.items():
        text = "".join(f"{name}\n" for name in names)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text)
        (root / "ImageSets" / "Main" / f"aeroplane_{split}.txt").write_text(
            "".join(f"{name} -1\n" for name in [*names, "2008_000001"])
        )
    for name in [*SIZES, "2008_000001"]:  # The last has no mask.
        (root / "Annotations" / f"{name}.xml").write_text("<annotation/>")
        pixels = color(name) if name in SIZES else np.zeros((9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    for name in SIZES:
        mask = Image.fromarray(truth(name))
        mask.putpalette(palette())
        mask.save(root / "SegmentationClass" / f"{name}.png")
        mask.save(root / "SegmentationObject" / f"{name}.png")
    return root


@pytest.fixture
def archive(root, tmp_path):
    path = tmp_path / "VOCtrainval_11-May-2012.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root.parent, "VOCdevkit")
    return path


def check(dataset, root):
    assert dataset.class_names == labels.VOC_CLASSES
    np.testing.assert_array_equal(
        dataset.palette[:21], np.reshape(palette(), (-1, 3))[:21]
    )
    assert set(dataset.splits) == set(SPLITS)
    for split, names in SPLITS.items():
        records = list(dataset.split(split).source)
        assert sorted(record["name"] for record in records) == names
        for record in records:
            file = root / "JPEGImages" / f"{record['name']}.jpg"
            assert record["image"] == file.read_bytes()
            mask = Image.open(io.BytesIO(record["mask"]))
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.array(mask), truth(record["name"]))
        counts = np.zeros(21, np.int64)
        for name in names:
            ids, number = np.unique(truth(name), return_counts=True)
            counts[ids[:-1]] += number[:-1]  # All but void.
        np.testing.assert_array_equal(dataset.split(split).pixel_counts, counts)
        assert dataset.split(split).max_size == tuple(
            max(SIZES[name][axis] for name in names) for axis in (0, 1)
        )


@pytest.mark.parametrize("above", [0, 1, 2])
def test_folder(root, tmp_path, above):
    source = [root, *root.parents][above]
    check(datasets.load("voc", source=source, data_dir=tmp_path / "data"), root)


def test_archive(root, archive, tmp_path):
    source = str(archive)
    check(datasets.load("voc", source=source, data_dir=tmp_path / "data"), root)


def test_download(root, archive, tmp_path, monkeypatch):
    calls = []

    counts = {split: len(names) for split, names in SPLITS.items()}
    monkeypatch.setattr(voc, "COUNTS", counts)

    def fetch(urls, *, checksum, path, size, remedy):
        assert len(urls) > 1 and all(url.endswith(archive.name) for url in urls)
        assert checksum.startswith("sha256:e14f7632") and size == 1_999_639_040
        calls.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(archive, path)

    monkeypatch.setattr(download, "fetch", fetch)
    data_dir = tmp_path / "data"
    check(datasets.load("voc", data_dir=data_dir), root)
    assert calls == [data_dir / "downloads" / archive.name]


def test_failed_download_tells_the_remedy(tmp_path, monkeypatch):
    def dead(url, part, size):
        raise download._MirrorError("dead")

    monkeypatch.setattr(download, "_receive", dead)
    with pytest.raises(errors.UserError) as caught:
        voc.scan("VOC2012", "", "", tmp_path)
    message = str(caught.value)
    assert message.startswith("VOCtrainval_11-May-2012.tar could not be downloaded")
    assert len(voc._URLS) > 1 and all(url in message for url in voc._URLS)
    assert message.endswith("and set config.data.source to the file.")


def test_other_prefix_in_archive(root, tmp_path):
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root, "./train/VOC2012")
    assert voc.find_root(files.open_files(path)) == "train/VOC2012/"


def test_years_side_by_side(root, tmp_path):
    lists = root.with_name("VOC2007") / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000032\n")
    assert voc.find_root(files.open_files(root.parent)) == "VOC2012/"
    root.rename(root.with_name("VOC2012-copy"))
    with pytest.raises(errors.UserError, match="2 data sets: VOC2007/, VOC2012-copy/"):
        voc.find_root(files.open_files(root.parent))


def test_source_without_voc(tmp_path):
    with pytest.raises(errors.UserError, match="no VOCdevkit/VOC2012 in"):
        voc.scan("VOC2012", tmp_path, "", tmp_path)
    with pytest.raises(errors.UserError, match="nowhere does not exist"):
        voc.scan("VOC2012", tmp_path / "nowhere", "", tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "ImageSets/Segmentation/val.txt",
        "JPEGImages/2011_003276.jpg",
        "SegmentationClass/2011_003276.png",
    ],
)
@pytest.mark.parametrize("in_archive", [False, True])
def test_missing_part_is_named(root, tmp_path, name, in_archive):
    (root / name).unlink()
    source = root
    if in_archive:
        source = tmp_path / "part.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(root.parent, "VOCdevkit")
    with pytest.raises(errors.UserError, match=name.removesuffix(".jpg")[:-4]):
        voc.scan("VOC2012", source, "", tmp_path)


def test_truncated_archive_leaves_nothing(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:-20_000])
    with pytest.raises(errors.UserError, match="damaged"):
        datasets.load("voc", source=str(archive), data_dir=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_leaks_are_refused():
    def leak(name, train_split, eval_split):
        # Of all that was trained on, the worst counts.
        trained_on = ["folder/train", f"{name}/{train_split}", "shapes/train"]
        return datasets.require_no_leak(trained_on, f"{name}/{eval_split}")

    for split in ("val", "trainval"):
        with pytest.raises(
            errors.UserError, match="many of VOC 2012's val.*seg11valid"
        ):
            leak("voc", "sbd_train", split)
    assert leak("voc", "sbd_train", "seg11valid") == ""
    assert leak("voc", "trainaug", "val") == leak("voc", "train", "seg11valid") == ""
    for pair in itertools.permutations(("trainval", "val", "seg11valid"), 2):
        assert "do not tell how new images fare" in leak("voc", *pair)
        assert "do not tell how new images fare" in leak("voc", pair[0], pair[0])
    assert "are among" in leak("voc", "trainaug", "trainval")
    assert leak("folder", "sbd_train", "val") == ""
