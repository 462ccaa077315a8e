"""What the benchmarks say, where it can be known without measuring."""

import json
import runpy
import sys
import time

import numpy as np
import pytest

from benchmarks import camvid, competitors, measure, peer_input
from fcn_jax.data import transforms
from fcn_jax.training import setup


def test_flops_are_those_that_are_published():
    case = competitors.Case.parse("infer:same:224x224:1:float32")
    # VGG-16 takes 15.47 G products of an image of 224x224, classifier included; of
    # which fc6 as a 7x7 convolution with padding takes 49 times the first layer's, fc7
    # likewise, and there is no fc8.
    convolutions = 15_346_630_656
    head = 49 * (7 * 7 * 512 * 4096 + 4096 * 4096)
    assert case.flops() == 2 * (convolutions + head)
    train = competitors.Case.parse("train:same:224x224:2:float32")
    first = 224 * 224 * 9 * 3 * 64
    assert train.flops() == 2 * 2 * (3 * (convolutions + head) - first)


def nap(seconds):
    """A side that sleeps and counts."""
    count = 0

    def work():
        nonlocal count
        time.sleep(seconds)
        count += 1
        return count

    return work


def test_the_first_step_is_timed_alone_and_later_ones_are_waited_for_together(
    monkeypatch,
):
    monkeypatch.setattr(competitors, "steps", lambda: 3)
    started, finished = [], []
    work = competitors.unit(lambda: started.append(0), finished.append)
    work()
    work()
    assert len(started) == 4 and list(map(len, finished)) == [1, 3]

    class Second:
        run = staticmethod(lambda: 6.0)

    times = measure.take_turns({"side": Second()}, 2, steps=3)["side"]
    assert times["first"] == 6.0 and times["all"] == [2.0, 2.0]


def fail():
    """A side that cannot be built."""
    raise ValueError("no GPU")


def test_sides_take_turns_in_processes_of_their_own():
    with measure.sides(short=(nap, 0.0), long=(nap, 0.05)) as sides:
        times = measure.take_turns(sides, 3)
        assert [side.result() for side in sides.values()] == [7, 7]
        assert all(side.peak_gib() > 0 for side in sides.values())
    assert times["long"]["lowest"] >= 0.05 and len(times["short"]["all"]) == 3


def test_a_side_that_fails_ends_the_benchmark_with_its_reason():
    with pytest.raises(SystemExit, match="ValueError: no GPU"):
        with measure.sides(bad=(fail,)):
            pass


def test_the_peers_examples_are_ours_without_augmentation():
    (record,) = peer_input.make_records(40, 60, 1)
    ours = transforms.Augment(
        crop=(40, 60), scale=(1.0, 1.0), flip=False, photometric=False
    )(record, np.random.default_rng(0))
    theirs = peer_input.Usual((40, 60), (1.0, 1.0), flip=False, colours=False)(record)
    for name in ("image", "label"):
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("name", camvid.ALL)
def test_settings_that_are_tried_can_train(name):
    setting = camvid.ALL[name]
    config = runpy.run_path(str(camvid.ROOT / setting.config))["get_config"]()
    config.update_from_flattened_dict(setting.changes)
    setup.check(config)


def test_a_search_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    file, ran = tmp_path / "rows.json", []

    def run(name, seed, source, cores):
        if (name, seed) == ("dice", 1):
            raise SystemExit("the machine went down")
        ran.append((name, seed))
        return {"name": name, "seed": seed}

    monkeypatch.setattr(camvid, "run", run)
    flags = ["--source=.", f"--json={file}", "--only", "base", "dice", "--seeds"]
    monkeypatch.setattr(sys, "argv", ["camvid", *flags, "0", "1"])
    with pytest.raises(SystemExit, match="went down"):
        camvid.main()
    assert ran == [("base", 0), ("base", 1), ("dice", 0)]
    monkeypatch.setattr(sys, "argv", ["camvid", *flags, "0", "1", "2"])
    monkeypatch.setattr(camvid, "run", lambda name, seed, *_: {"name": name, "seed": 9})
    camvid.main()
    rows = [(row["name"], row["seed"]) for row in json.loads(file.read_text())["rows"]]
    assert rows == [*ran, ("base", 9), ("dice", 9), ("dice", 9)]


def test_progress_of_a_run_is_passed_on_and_all_of_it_kept(capsys):
    program = "import sys; print('Training'); print('step 1/2'); sys.exit('no data')"
    code, printed = camvid._follow([sys.executable, "-c", program], "base, seed 0")
    assert capsys.readouterr().out == "base, seed 0: step 1/2\n"
    assert code == 1 and "Training" in printed and "no data" in printed


@pytest.mark.parametrize("flags", (["--source=/home/me"], ["--source", "/home/me"]))
def test_a_results_command_tells_no_folder_of_the_machine(flags, monkeypatch):
    script = "/home/me/benchmarks/camvid.py"
    flags = [script, *flags, "--json", "/home/me/a.json", "--jobs=2"]
    monkeypatch.setattr(sys, "argv", flags)
    expected = "python -m benchmarks.camvid --source=FOLDER --jobs=2"
    assert measure.command() == expected
