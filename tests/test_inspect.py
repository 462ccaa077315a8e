"""What an inspection recognises, against expectations written by hand."""

import json
import shlex
import shutil
import subprocess
import tarfile

import example_folders
import numpy as np
import pytest
from example_folders import SIZES, pixels, save
from example_inspections import (
    NAMES,
    assert_trains,
    ids_of,
    image_of,
    kinds,
    look,
    make,
)
from PIL import Image

from fcn_jax.inspection import measure, record, report, samples

COLOURS = np.array([[0, 0, 0], [250, 10, 0], [255, 255, 255]], np.uint8)


def test_a_sound_folder_of_voc_layout(voc):
    found = look(voc)
    assert found.ok and found.listing.layout == "voc"
    assert {name: len(members) for name, members in found.splits.items()} == {
        "train": 3,
        "val": 2,
    }
    for split, names in {"train": "abc", "val": "de", "all": "abcde"}.items():
        masks = [pixels(name)[1] for name in names]
        for i, row in enumerate(found.table.rows):
            assert row.pixels[split] == sum((mask == i).sum() for mask in masks)
            assert row.images[split] == sum((mask == i).any() for mask in masks)
        assert found.table.void[split] == sum((mask == 255).sum() for mask in masks)
    assert found.meant.reading.label_map == ""
    assert found.command[3:] == [
        "--config.data.name=folder",
        f"--config.data.source={voc}",
        "--config.augment.crop=12,11",
    ]
    assert_trains(found)


@pytest.mark.parametrize(
    ("encode", "classes", "label_map"),
    [
        pytest.param(lambda ids: ids, "", "", id="as is"),
        pytest.param(lambda ids: ids, "sky road tree", "", id="as is, named"),
        pytest.param(
            lambda ids: np.where(ids == 2, 255, ids), "sky road", "", id="void"
        ),
        pytest.param(lambda ids: (ids > 0) * np.uint8(255), "", "0:0,255:1", id="255"),
        pytest.param(
            lambda ids: (ids > 0) * np.uint8(255), "a b", "0:0,255:1", id="255, named"
        ),
        pytest.param(lambda ids: ids + 1, "", "1-3:0", id="from 1"),
        pytest.param(lambda ids: ids + 1, "a b c", "1-3:0", id="from 1, named"),
        pytest.param(lambda ids: ids, "a b", "0:void,1-2:0", id="reduce_zero_label"),
        pytest.param(lambda ids: ids * 38, "", "0:0,38:1,76:2", id="spread"),
        pytest.param(
            lambda ids: np.array([0, 128, 255], np.uint8)[ids],
            "",
            "0:0,128:1,255:2",
            id="spread up to 255",
        ),
        pytest.param(
            lambda ids: np.array([3, 7, 255], np.uint8)[ids],
            "",
            "3:0,7:1,255:void",
            id="gaps",
        ),
        pytest.param(
            lambda ids: np.array([0, 900, 20000], np.uint16)[ids],
            "",
            "0:0,900:1,20000:2",
            id="16 bits",
        ),
        pytest.param(
            lambda ids: COLOURS[ids], "", "#000000:0,#fa0a00:1,#ffffff:2", id="colours"
        ),
        pytest.param(
            lambda ids: COLOURS[ids],
            "a b",
            "#000000:0,#fa0a00:1,#ffffff:void",
            id="colours, one more than names",
        ),
        pytest.param(
            lambda ids: np.repeat(ids[..., None], 3, -1),
            "",
            "#000000:0,#010101:1,#020202:2",
            id="greys stored as colours",
        ),
    ],
)
def test_encodings(tmp_path, encode, classes, label_map):
    found = look(make(tmp_path / "mine", encode, classes))
    assert found.meant.reading.label_map == label_map
    flag = f"--config.data.label_map={label_map}"
    assert (flag in found.command) == bool(label_map)
    assert_trains(found)


def test_both_readings_are_printed(tmp_path):
    found = look(make(tmp_path / "mine", classes="a b"))
    first, second = found.meant.readings
    assert first.title == "0 is void (reduce_zero_label)"
    assert "classes.txt names 2" in first.evidence
    assert second.title == "class ids as they are" and second.label_map == ""
    text = report.text(found)
    assert "meaning  0 is void" in text and "or else  class ids as" in text


def test_colours_of_pascal_voc(tmp_path):
    palette = np.array([[0, 0, 0], [192, 128, 128], [224, 224, 192]], np.uint8)
    found = look(make(tmp_path / "mine", lambda ids: palette[ids]))
    assert found.meant.reading.num_classes == 21
    assert found.meant.reading.ids[0xC08080] == 15
    assert found.table.rows[15].images["all"] == 6
    # A long map is in a file, which training reads.
    assert found.command[5] == (
        f"--config.data.label_map={found.output / 'label_map.txt'}"
    )
    dataset = assert_trains(found)
    assert len(dataset.class_names) == 21


def test_labelmap_txt_names_the_colours(tmp_path):
    folder = make(tmp_path / "mine", lambda ids: COLOURS[ids])
    (folder / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:255,255,255::\n"
        "background:0,0,0::\ncar:250,10,0::\n"
    )
    found = look(folder)
    assert tuple(found.meant.names) == ("road", "background", "car")
    assert found.table.rows[1].pixels["all"] == 6 * 52
    assert_trains(found)


def test_a_stated_map_is_applied_and_checked(tmp_path):
    folder = make(tmp_path / "mine")
    found = look(folder, label_map="0:void,1:1,2:0")
    assert found.table.void["all"] == 6 * 52
    assert_trains(found)
    found = look(folder, label_map="0:0,1:1")
    assert kinds(found)["unknown_value"] == [f"masks/{name}.png: 2" for name in NAMES]
    found = look(folder, label_map="#000000:0,#010101:1,#020202:2")
    assert_trains(found)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        pytest.param([10, 3000, 4000], (0, 4095), id="12 bits"),
        pytest.param([0, 700, 65535], (), id="whole range"),
        pytest.param([20000, 20100, 20300], (20000, 20300), id="narrow"),
    ],
)
def test_intensity_range(tmp_path, values, ends):
    folder = make(tmp_path / "mine")
    for name in NAMES:
        values16 = np.array(values, np.uint16)[ids_of(name)]
        save(folder / f"images/{name}.png", values16)
    found = look(folder)
    assert found.intensity_range == ends
    assert found.survey.extremes == (values[0], values[2])
    assert ("narrow_range" in kinds(found)) == bool(ends)
    assert_trains(found)


def test_values_that_need_a_range(tmp_path):
    folder = make(tmp_path / "mine")
    for name in NAMES:
        (folder / f"images/{name}.png").unlink()
        save(folder / f"images/{name}.tif", ids_of(name).astype(np.float32) * 50 - 20)
    found = look(folder)
    assert found.intensity_range == (-20, 80)
    assert len(kinds(found)["beyond_range"]) == 6
    assert_trains(found)
    assert look(folder, intensity_range=(-20, 80)).ok


def make_multilabel(folder):
    for name in NAMES:
        save(folder / f"images/{name}.png", image_of(name))
        save(folder / f"masks/water/{name}.png", (ids_of(name) == 1) * np.uint8(255))
        if name != "c":
            save(folder / f"masks/shadow/{name}.png", (ids_of(name) > 0) * np.uint8(1))
    return folder


def test_multilabel(tmp_path):
    found = look(make_multilabel(tmp_path / "mine"))
    assert found.listing.layout == "multilabel"
    assert "--config.task=multilabel" in found.command
    assert [row.name for row in found.table.rows] == ["shadow", "water"]
    water = sum((ids_of(name) == 1).sum() for name in NAMES)
    shadow = sum((ids_of(name) > 0).sum() for name in NAMES if name != "c")
    assert [row.pixels["all"] for row in found.table.rows] == [shadow, water]
    assert found.table.labelled["all"] == 6 * 80
    assert kinds(found)["class_without_mask"] == ["c: shadow"]
    assert_trains(found)


def test_a_tar_file(voc, tmp_path):
    path = tmp_path / "mine.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(voc, ".")
    found = look(path)
    assert found.table.num_images == {"all": 5, "train": 3, "val": 2}
    assert_trains(found)


def test_folders_of_other_names_are_found(tmp_path):
    folder = make(tmp_path / "mine")
    (folder / "images").rename(folder / "img_dir")
    (folder / "masks").rename(folder / "ann_dir")
    found = look(folder)
    assert "--config.data.image_dir=img_dir" in found.command
    assert_trains(found)


def test_rare_and_missing_classes(tmp_path):
    folder = make(tmp_path / "mine", classes="a b c never")
    found = look(folder)
    assert kinds(found)["never_trained"] == ["never"]
    ids = ids_of("a") * 0
    for name in NAMES:
        save(folder / f"masks/{name}.png", ids)
    ids[0, 0], ids[1, :2] = 1, 2
    member = found.survey.items[found.splits["train"][0]].pair.name
    save(folder / f"masks/{member}.png", ids)
    found = look(folder)
    assert kinds(found)["never_scored"] == ["b", "c"]
    assert kinds(found)["rare"] == ["b (0.21%)", "c (0.42%)"]


def test_text_json_and_command(tmp_path):
    folder = make(tmp_path / "it's mine\n\x1b[31m")
    save(folder / "images/\x1b[31mred\n.png", image_of("z"))
    save(folder / "masks/\x1b[31mred\n.png", ids_of("z"))
    found = look(folder)
    assert kinds(found)["bad_name"] == [
        "images/\x1b[31mred\n.png",
        "masks/\x1b[31mred\n.png",
    ]
    text = report.text(found)
    assert all(line.isprintable() for line in text.split("\n"))
    command = text[text.index("  python run_train.py") : text.index("That starts")]
    printed = subprocess.run(
        ["bash", "-c", command.replace("python", "printf '%s\\0'", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split("\0")[:-1] == found.command[1:]
    for path in record.save(found, samples.draw(found, 24)):
        assert path.parent == found.output
    written = json.loads((found.output / "inspect.json").read_text())
    assert written["ok"] is False and written["num_images"] == 7
    assert written["classes"][1]["pixels"]["all"] == found.table.rows[1].pixels["all"]
    assert written["findings"][0]["names"] == kinds(found)["bad_name"]
    assert shlex.split(shlex.join(written["command"])) == found.command
    assert not list(found.output.glob("*.part"))


def test_files_are_looked_at_in_order_and_few_at_a_time():
    started = []
    results = measure.in_threads(lambda i: started.append(i) or i, range(500))
    assert next(results) == 0 and len(started) < 100
    assert list(results) == list(range(1, 500))


def test_sizes_and_types(tmp_path):
    folder = example_folders.make_parallel(tmp_path / "mine")
    shutil.copy(folder / "images/a.png", folder / "images/a.txt")
    Image.fromarray(pixels("b")[0]).save(folder / "images/b.jpg")
    (folder / "images/b.png").unlink()
    found = look(folder)
    widths, heights = zip(*[(w, h) for h, w in SIZES.values()], strict=True)
    sizes = record.sizes(found)
    assert sizes["min"] == [min(widths), min(heights)]
    assert sizes["max"] == [max(widths), max(heights)]
    assert sizes["distinct"] == 5
    assert found.survey.image_types == {"PNG RGB": 4, "JPEG RGB": 1}
    assert kinds(found)["other_files"] == ["images/a.txt"]
    assert_trains(found)
