"""Prediction from files to files: what is read, written, skipped and refused."""

import csv
import errno
import os
import pathlib

import cv2
import example_folders
import numpy as np
import pytest
from example_runs import CLASSES, run
from PIL import Image

from fcn_jax.errors import UserError
from fcn_jax.evaluation import outputs, predict, sources, trained
from fcn_jax.reporting import colors

FOUR = "abde"


@pytest.fixture(scope="module")
def net(whole):
    return trained.load(whole[0], "latest")


@pytest.fixture
def photos(tmp_path):
    for name in FOUR:
        image, _ = example_folders.pixels(name)
        example_folders.save(tmp_path / f"photos/{name}.png", image)
    return tmp_path / "photos"


def do(net, source, output, **how):
    return predict.predict_files(net, sources.find_images(source), output, **how)


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def read_areas(folder):
    with open(folder / "areas.csv", newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def make_video(path, frames, code="MJPG"):
    size = frames[0].shape[1::-1]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, size)
    for frame in frames:
        video.write(frame)
    video.release()


def test_masks_overlays_probabilities_and_areas_agree(net, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert do(net, photos, output, probabilities="npz", batch_size=3) == []
    areas = read_areas(output)
    assert list(areas) == [f"{name}.png" for name in FOUR]
    means = np.zeros(3)
    for name in FOUR:
        image, _ = example_folders.pixels(name)
        ids = read(output / f"{name}_mask.png")
        assert ids.shape == image.shape[:2]
        with np.load(output / f"{name}_probabilities.npz") as file:
            probabilities = file["probabilities"]
            assert file["class_names"].tolist() == CLASSES
        assert (probabilities.dtype, probabilities.shape) == ("f2", (*ids.shape, 3))
        np.testing.assert_allclose(probabilities.sum(-1, dtype="f8"), 1, atol=2e-3)
        best = np.take_along_axis(probabilities, ids[..., None].astype(int), -1)
        assert (best[..., 0] >= probabilities.max(-1)).all()
        np.testing.assert_array_equal(
            read(output / f"{name}_overlay.png"),
            colors.overlay(image, ids, net.palette),
        )
        row = areas[f"{name}.png"]
        assert (row["height"], row["width"]) == tuple(map(str, ids.shape))
        for i, label in enumerate(CLASSES):
            pixels = sum(value == i for value in ids.ravel())
            assert row[f"{label} pixels"] == str(pixels)
            assert float(row[f"{label} share"]) == pytest.approx(
                pixels / ids.size, abs=1e-6
            )
            means[i] += pixels / ids.size / 4
    said = capsys.readouterr().out
    assert f"Segmented 4 image(s) into {output}." in said
    for label, mean in zip(CLASSES, means, strict=True):
        assert any(
            line.split()[:2] == [label, f"{mean:.2%}"] for line in said.splitlines()
        )


def test_probabilities_as_png_have_sixteen_bits(net, photos, tmp_path):
    for kind in ("npz", "png"):
        assert do(net, photos / "a.png", tmp_path / "out", probabilities=kind) == []
    with np.load(tmp_path / "out/a_probabilities.npz") as file:
        expected = file["probabilities"].astype(float)
    for i, label in enumerate(CLASSES):
        found = read(tmp_path / f"out/a_probability_{i:02d}_{label}.png")
        assert found.dtype == np.uint16
        np.testing.assert_allclose(found / 65535, expected[..., i], atol=1e-3)


def test_what_exists_is_skipped_and_its_areas_stay(net, photos, tmp_path, capsys):
    output = tmp_path / "out"
    do(net, photos, output)
    before = (output / "areas.csv").read_bytes()
    files = {p: p.stat().st_mtime_ns for p in output.iterdir()}
    (output / "b_mask.png").unlink()
    (output / "areas.csv").unlink()
    capsys.readouterr()
    do(net, photos, output)
    said = capsys.readouterr().out
    assert "Segmented 1 image(s)" in said and "Skipped 3 whose results" in said
    assert (output / "areas.csv").read_bytes() == before
    changed = {p.name for p, t in files.items() if p.stat().st_mtime_ns != t}
    assert changed == {"b_mask.png", "b_overlay.png", "areas.csv"}
    # A mask that is there counts as it is, and other images' rows are kept.
    Image.fromarray(np.full((7, 9), 2, np.uint8)).save(output / "a_mask.png")
    do(net, photos / "a.png", output)
    assert read_areas(output)["a.png"]["tree pixels"] == "63"
    assert len(read_areas(output)) == 4
    do(net, photos, output, overwrite=True)
    assert (output / "areas.csv").read_bytes() == before


def test_bad_files_are_listed_and_the_others_done(net, photos, tmp_path):
    (photos / "bad\nname.jpg").write_bytes(b"no image")
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "pipe.png")  # To read it would wait for ever.
    (photos / "._a.png").write_bytes(b"what macOS leaves")  # Hidden: not an image.
    long = photos / ("n" * 245 + ".png")
    long.write_bytes((photos / "a.png").read_bytes())
    odd = "=1+1 é\n.png"
    (photos / odd).write_bytes((photos / "a.png").read_bytes())
    failures = do(net, photos, tmp_path / "out")
    assert len(failures) == 4
    assert "\n" not in "".join(failures)
    for part in (
        "bad\\nname.jpg' (8 bytes) is not an image",
        "folder.png",
        "nnn",
        "pipe.png",
    ):
        assert sum(part in failure for failure in failures) == 1, failures
    assert {p.name for p in (tmp_path / "out").glob("*_mask.png")} == {
        f"{stem}_mask.png" for stem in (*FOUR, "=1+1 é\n")
    }
    assert f"'{odd}" in read_areas(tmp_path / "out")
    do(net, photos, tmp_path / "out")
    assert len(read_areas(tmp_path / "out")) == 5


def test_a_damaged_mask_of_before_is_named(net, photos, tmp_path):
    do(net, photos, tmp_path / "out")
    (tmp_path / "out/a_mask.png").write_bytes(b"")
    Image.fromarray(np.full((12, 5), 3, np.uint8)).save(tmp_path / "out/b_mask.png")
    failures = do(net, photos, tmp_path / "out")
    assert ["a_mask.png" in failures[0], "b_mask.png is no mask" in failures[1]] == [
        True,
        True,
    ]


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(
    net, photos, tmp_path, monkeypatch
):
    def fail(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
    with pytest.raises(UserError, match="cannot be written .No space left") as error:
        do(net, photos, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_of_a_video_are_images(net, tmp_path):
    rng = np.random.default_rng(0)
    frames = [
        cv2.resize(rng.integers(0, 256, (4, 6, 3), np.uint8), (48, 32)) for _ in "12345"
    ]
    make_video(tmp_path / "my clip.avi", frames)
    output = tmp_path / "out"
    assert do(net, tmp_path / "my clip.avi", output, every=2, batch_size=2) == []
    stems = [f"my clip_{i:06d}" for i in (0, 2, 4)]
    assert list(read_areas(output)) == stems
    video = cv2.VideoCapture(str(tmp_path / "my clip.avi"))
    images = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB) for _ in frames]
    expected = predict.Predictor(net)(images)
    for i in (0, 2, 4):
        found = read(output / f"my clip_{i:06d}_mask.png")
        np.testing.assert_array_equal(found, expected[i])

    # Those that are done are not decoded again; the others are.
    loads = [
        p.load is None
        for p in sources.pictures(
            sources.find_images(tmp_path / "my clip.avi"),
            is_done=lambda stem: stem in stems,
        )
    ]
    assert loads == [True, False, True, False, True]


def test_videos_that_cannot_be_read_are_listed(net, tmp_path):
    make_video(tmp_path / "cut.avi", [np.zeros((32, 48, 3), np.uint8)] * 20)
    content = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "none.mp4").write_bytes(b"no video")
    failures = do(net, f"{tmp_path}/*.*", tmp_path / "out")
    assert len(failures) == 2
    assert "none.mp4 is no video" in failures[1]
    if (tmp_path / "out/cut_000000_mask.png").exists():
        assert "cut.avi ends after" in failures[0]
    with pytest.raises(UserError, match="--every=0 must be 1 or more"):
        do(net, tmp_path / "cut.avi", tmp_path / "out", every=0)


def test_patterns_find_files_below(tmp_path):
    for name in ("x/1.jpg", "x/y/2.JPG", "x/3.txt", "x/[4].png", "z/clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def find(pattern):
        found = sources.find_images(f"{tmp_path}/{pattern}")
        return [str(p.relative_to(tmp_path)) for p in found]

    assert find("x/*.*") == ["x/1.jpg", "x/[4].png"]
    assert find("x/[4].png") == ["x/[4].png"]  # A file's own name first.
    assert find("**/*") == ["x/1.jpg", "x/[4].png", "x/y/2.JPG", "z/clip.mp4"]
    with pytest.raises(UserError, match="matches no images"):
        find("*.jpg")
    (tmp_path / "z/1.png").touch()
    with pytest.raises(UserError, match=r"x/1\.jpg and .*z/1\.png would both write 1_"):
        find("**/*")
    (tmp_path / "z/1.png").rename(tmp_path / "z/clip_000003.png")
    with pytest.raises(UserError, match=r"clip_000003\.png and clip\.mp4 would both"):
        find("z/*")


def test_masks_are_not_written_beside_the_images(net, photos):
    with pytest.raises(UserError, match="--output=.*photos is a folder of the images"):
        do(net, photos, photos)
    assert do(net, photos / "a.png", photos) == []  # One image is no such risk.


def test_a_mask_for_each_of_several_labels(tmp_path):
    names = ["=sun/rise", "näive class", "x" * 60]
    rng = np.random.default_rng(0)
    masks, image = rng.integers(0, 2, (5, 7, 3), np.uint8), np.zeros((5, 7, 3), "u1")
    palette = rng.integers(0, 256, (256, 3), np.uint8)
    made = outputs.Outputs(tmp_path, names, palette, multilabel=True)
    assert not made.is_done("a")
    made.write("a", image, masks, None)
    files = ["a_mask_00_sun_rise.png", "a_mask_01_näive_class.png"]
    files.append(f"a_mask_02_{'x' * 30}.png")
    assert {p.name for p in tmp_path.iterdir()} == {*files, "a_overlay.png"}
    for i, name in enumerate(files):
        np.testing.assert_array_equal(read(tmp_path / name), 255 * masks[..., i])
    again = outputs.Outputs(tmp_path, names, palette, multilabel=True)
    assert again.is_done("a")
    np.testing.assert_array_equal(again.read("a"), masks)
    areas = outputs.Areas(names)
    areas.add("@a.png", again.read("a"))
    again.write_areas(areas)
    (row,) = read_areas(tmp_path).values()
    assert row["name"] == "'@a.png"
    for i, name in enumerate(("'=sun/rise", *names[1:])):
        assert row[f"{name} pixels"] == str(masks[..., i].sum())


def test_the_command_says_what_it_did_and_fails_for_a_bad_file(whole, photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"")
    (photos / "c.png").write_bytes((photos / "a.png").read_bytes())
    common = (f"--workdir={whole[0]}", f"--output={tmp_path / 'out'}")
    done = run("run_predict.py", *common, f"--input={photos}", "--flip", "--scales=1,2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "bad.jpg" in done.stderr.splitlines()[-1]
    assert "Segmented 5 image(s)" in done.stdout and "mean share" in done.stdout
    assert len(read_areas(tmp_path / "out")) == 5
