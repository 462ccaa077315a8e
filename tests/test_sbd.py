"""PASCAL VOC 2012 with SBD's masks, on miniatures of their true layouts."""

import contextlib
import gzip
import hashlib
import io
import os
import tarfile

import example_server
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from fcn_jax import errors
from fcn_jax.data import datasets, labels, sbd, voc

VOC = {"train": "ab", "val": "cdef", "trainval": "abcdef"}
# In SBD's lists, too: of VOC's train a, of its val c and d.
SBD = {"train": ["a", "c", "g", "h"], "val": ["d", "i"]}
SEG11VALID = ["e", "f"]  # Of VOC's val, and not in SBD's train.
TRAINAUG = ["a", "b", "g", "h", "i"]


def pixels(name):
    """An image of a size and with ids of its own."""
    rng = np.random.default_rng(ord(name))
    h, w = rng.integers(12, 40, 2)
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    return image, rng.integers(0, 21, (h, w), np.uint8)


def voc_mask(name):
    """VOC's mask has void pixels; SBD's differs in having none."""
    ids = pixels(name)[1].copy()
    ids[:2] = 255
    return ids


def mat(ids):
    """A file as SBD's: a struct in a struct, one sparse boundary a class."""
    boundaries = np.empty((20, 1), object)
    for i in range(20):
        boundaries[i, 0] = scipy.sparse.csc_matrix(ids == i + 1, dtype=bool)
    present = np.setdiff1d(ids, 0)[:, None].astype(np.uint8)
    content = {
        "GTcls": {
            "Boundaries": boundaries,
            "Segmentation": ids,
            "CategoriesPresent": present,
        }
    }
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=True)
    return file.getvalue()


@pytest.fixture
def voc_root(tmp_path):
    root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in VOC["trainval"]:
        Image.fromarray(pixels(name)[0]).save(root / f"JPEGImages/{name}.jpg")
        mask = Image.fromarray(voc_mask(name))
        mask.putpalette(labels.voc_palette().tobytes())
        mask.save(root / f"SegmentationClass/{name}.png")
    for split, names in VOC.items():
        text = "".join(f"{name}\n" for name in names)
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(text)
    return root


@pytest.fixture
def sbd_root(tmp_path):
    root = tmp_path / "sbd" / "benchmark_RELEASE"
    for folder in ("img", "cls", "inst"):
        (root / "dataset" / folder).mkdir(parents=True)
    (root / "benchmark_code").mkdir()
    (root / "benchmark_code" / "train.txt").write_text("not a list of SBD\n")
    for split, names in SBD.items():
        text = "".join(f"{name}\n" for name in names)
        (root / f"dataset/{split}.txt").write_text(text)
        for name in names:
            image, ids = pixels(name)
            Image.fromarray(image).save(root / f"dataset/img/{name}.jpg")
            (root / f"dataset/cls/{name}.mat").write_bytes(mat(ids))
            (root / f"dataset/inst/{name}.mat").write_bytes(b"not read")
    return root


@pytest.fixture
def seg11valid(voc_root):
    path = voc_root / "ImageSets/Segmentation/seg11valid.txt"
    path.write_text("".join(f"{name}\n" for name in SEG11VALID))
    return path


def pack(root, path, mode):
    with tarfile.open(path, mode) as tar:
        tar.add(root, root.name)
    return path


def check(dataset, split, names, *, from_sbd):
    """Every record of a split, its mask from the one or from the other."""
    records = {r["name"]: r for r in dataset.split(split).source}
    assert sorted(records) == sorted(names)
    counts = np.zeros(21, np.int64)
    for name, record in records.items():
        with Image.open(io.BytesIO(record["mask"])) as mask:
            assert mask.mode == "L"
            ids = np.array(mask)
        wanted = pixels(name)[1] if name in from_sbd else voc_mask(name)
        np.testing.assert_array_equal(ids, wanted, err_msg=name)
        counts += np.bincount(wanted.ravel(), minlength=256)[:21]
    np.testing.assert_array_equal(dataset.split(split).pixel_counts, counts)


@pytest.fixture
def load(voc_root, tmp_path):
    def load(*splits, source=voc_root, **kwargs):
        return datasets.load(
            "voc", source=source, data_dir=tmp_path / "data", splits=splits, **kwargs
        )

    return load


def test_splits_take_what_they_say(load, sbd_root, seg11valid):
    dataset = load("trainaug", "sbd_train", "seg11valid", "val", sbd_source=sbd_root)
    check(dataset, "trainaug", TRAINAUG, from_sbd="ghi")
    check(dataset, "sbd_train", SBD["train"], from_sbd=SBD["train"])
    check(dataset, "seg11valid", SEG11VALID, from_sbd="")
    check(dataset, "val", VOC["val"], from_sbd="")
    assert set(dataset.splits) == {*voc.SPLITS, "trainaug", "sbd_train", "seg11valid"}
    assert dataset.class_names == labels.VOC_CLASSES
    np.testing.assert_array_equal(dataset.palette, labels.voc_palette())
    # What must not be trained on is not.
    assert not set(TRAINAUG) & set(VOC["val"])
    assert not set(SBD["train"]) & set(SEG11VALID)


def test_only_what_is_wanted_is_looked_for(load, voc_root, tmp_path):
    check(load("train", "val"), "train", VOC["train"], from_sbd="")
    with pytest.raises(errors.UserError, match="nowhere does not exist"):
        load("trainaug", sbd_source=tmp_path / "nowhere")
    with pytest.raises(errors.UserError, match='no split "valid"; choose .* trainaug'):
        load("valid")


@pytest.mark.parametrize("above", [0, 1, 2])
def test_sbd_is_found_at_any_depth(load, sbd_root, above):
    source = [sbd_root / "dataset", sbd_root, sbd_root.parent][above]
    dataset = load("sbd_train", sbd_source=source)
    check(dataset, "sbd_train", SBD["train"], from_sbd=SBD["train"])


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_the_archive_may_be_compressed_or_not(load, sbd_root, tmp_path, mode):
    path = pack(sbd_root, tmp_path / "benchmark.tgz", mode)
    for _ in range(2):
        dataset = load("sbd_train", sbd_source=path)
        check(dataset, "sbd_train", SBD["train"], from_sbd=SBD["train"])
    unpacked = tmp_path / "data/downloads/benchmark.tar"
    assert unpacked.exists() == (mode == "w:gz")


def test_another_archive_of_the_same_name_is_unpacked_too(load, sbd_root, tmp_path):
    for folder, time, names in (("new", 2e9, "acgh"), ("old", 1e9, "ac")):
        (tmp_path / folder).mkdir()
        text = "".join(f"{name}\n" for name in names)
        (sbd_root / "dataset/train.txt").write_text(text)
        path = pack(sbd_root, tmp_path / folder / "benchmark.tgz", "w:gz")
        os.utime(path, (time, time))
        dataset = load("sbd_train", sbd_source=path)
        check(dataset, "sbd_train", names, from_sbd=names)


@pytest.mark.parametrize("cut", [30, 2000])
def test_a_damaged_archive_is_named_and_leaves_nothing(load, sbd_root, tmp_path, cut):
    path = pack(sbd_root, tmp_path / "benchmark.tgz", "w:gz")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(errors.UserError, match="benchmark.tgz is damaged or incompl"):
        load("sbd_train", sbd_source=path)
    kept = {p.name for p in (tmp_path / "data/downloads").iterdir()}
    assert kept == {"benchmark.tar.lock"}


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", mat(np.zeros((3, 3), np.uint8))[:-9], mat(np.zeros((3, 3)))],
)
def test_a_damaged_mask_is_named(load, sbd_root, content):
    (sbd_root / "dataset/cls/g.mat").write_bytes(content)
    with pytest.raises(errors.UserError, match="cls/g.mat is damaged, or has no uint8"):
        load("sbd_train", sbd_source=sbd_root)


@pytest.mark.parametrize("name", ["img/h.jpg", "cls/h.mat", "val.txt", "train.txt"])
def test_a_missing_part_is_named(load, sbd_root, name):
    (sbd_root / "dataset" / name).unlink()
    wanted = "no SBD in" if name == "train.txt" else f"There is no .*{name}|no .*{name}"
    with pytest.raises(errors.UserError, match=wanted):
        load("sbd_train", sbd_source=sbd_root)


def test_seg11valid_has_to_be_of_val(load, seg11valid):
    seg11valid.write_text("e\na\n")
    with pytest.raises(errors.UserError, match="has a, which is not in VOC 2012's val"):
        load("seg11valid")


def test_a_subset_is_told_and_the_whole_has_to_be_whole(
    load, sbd_root, seg11valid, monkeypatch, capsys
):
    load("trainaug", sbd_source=sbd_root)
    assert "trainaug has 5 images instead of 10582" in capsys.readouterr().out
    # These are the whole, by the numbers of VOC's train and val and of SBD's.
    counts = {"train": 2, "val": 4, "trainval": 6, "trainaug": 5, "seg11valid": 2}
    monkeypatch.setattr(voc, "COUNTS", counts | {"sbd_train": 4})
    monkeypatch.setattr(voc, "_SBD_COUNTS", {"train": 4, "val": 2})
    load("trainaug", "seg11valid", "train", sbd_source=sbd_root)
    assert "not the whole" not in capsys.readouterr().out
    for name in ("trainaug", "seg11valid", "trainval"):
        monkeypatch.setitem(voc.COUNTS, name, counts[name] + 1)
        found = f"{name} has {counts[name]} images instead of {counts[name] + 1}"
        with pytest.raises(errors.UserError, match=found):
            load(name, sbd_source=sbd_root)


def test_the_whole_way_from_interrupted_downloads(
    load, voc_root, sbd_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("no_proxy", "*")
    packed = gzip.compress(pack(sbd_root, tmp_path / "sbd.tar", "w").read_bytes())
    contents = {
        (voc, ""): pack(voc_root.parent, tmp_path / "voc.tar", "w").read_bytes(),
        (voc, "_SEG11VALID"): "".join(f"{n}\n" for n in SEG11VALID).encode(),
        (sbd, ""): packed,
    }
    counts = {name: len(names) for name, names in VOC.items()}
    counts |= {"seg11valid": 2, "sbd_train": 4, "trainaug": 5}
    monkeypatch.setattr(voc, "COUNTS", counts)
    monkeypatch.setattr(voc, "_SIZE", len(contents[voc, ""]))
    downloads = tmp_path / "data/downloads"
    splits = "seg11valid", "sbd_train", "trainaug", "val"
    with contextlib.ExitStack() as stack:
        servers = {}
        for (module, prefix), content in contents.items():
            # SBD's is cut for good at 999, the others once.
            cuts = [999, 0] if module is sbd else [len(content) // 2]
            server = stack.enter_context(example_server.serving(content, cuts=cuts))
            servers[module, prefix] = server
            monkeypatch.setattr(module, f"{prefix}_URLS", (server.url,))
            checksum = "sha256:" + hashlib.sha256(content).hexdigest()
            monkeypatch.setattr(module, f"{prefix}_CHECKSUM", checksum)
        with pytest.raises(errors.UserError, match="continues at byte 999"):
            load(*splits, source="")
        assert (downloads / "benchmark.tgz.part").read_bytes() == packed[:999]
        assert not (downloads / "benchmark.tgz").exists()
        # The next run is killed just before what it unpacked is whole.
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sbd.os, "utime", kill)
            load(*splits, source="")
        assert not (downloads / "benchmark.tar").exists()
        for _ in range(2):
            dataset = load(*splits, source="")
            check(dataset, "seg11valid", SEG11VALID, from_sbd="")
            check(dataset, "sbd_train", SBD["train"], from_sbd=SBD["train"])
            check(dataset, "trainaug", TRAINAUG, from_sbd="ghi")
            check(dataset, "val", VOC["val"], from_sbd="")
        # Not a byte was sent twice.
        for (module, prefix), content in contents.items():
            sent = [count for _, count in servers[module, prefix].seen]
            assert len(sent) > 1 and sum(sent) == len(content)
    # Prepared sets do without the downloads.
    for file in downloads.iterdir():
        file.unlink()
    check(load(*splits, source=""), "trainaug", TRAINAUG, from_sbd="ghi")


def kill(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_changed_download_is_refused(load, tmp_path):
    path = tmp_path / "data/downloads/seg11valid.txt"
    path.parent.mkdir(parents=True)
    path.write_text("e\n")
    with pytest.raises(
        errors.UserError, match="not the file that was published.*delete it"
    ):
        load("seg11valid")
