"""Runs that are told to end, whose checkpoints are damaged or whose disk is full."""

import gc
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from example_runs import ROOT, flags, tiny_config, tiny_settings

from fcn_jax.errors import Preempted, UserError
from fcn_jax.evaluation import trained
from fcn_jax.training import checkpoints, loop, resume

# What Orbax had still to read, when it met the damage, complains when it goes.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def nothing_is_left_to_complain():
    yield
    for _ in range(3):
        gc.collect()


def largest_file(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def flip_a_bit(folder):
    data = bytearray(largest_file(folder).read_bytes())
    data[len(data) // 2] ^= 1
    largest_file(folder).write_bytes(data)


def truncate(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:1000])


@pytest.fixture
def copy(folder, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        truncate,
        lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(),
        lambda folder: shutil.rmtree(folder / "training"),
    ],
    ids=["bit", "truncated", "metadata", "part"],
)
def test_a_damaged_checkpoint_is_named_and_another_only_taken_when_asked(
    folder, whole, copy, damage, capsys
):
    damage(copy / "checkpoints/6")
    with pytest.raises(UserError, match=r"checkpoints/6 is damaged.*use --step=4"):
        loop.train_and_evaluate(tiny_config(folder), copy)
    assert not (copy / resume.SET_ASIDE).exists()
    state = loop.train_and_evaluate(tiny_config(folder), copy, "4")
    assert "Set aside a later checkpoint" in capsys.readouterr().out
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(state), jax.device_get(whole[1])
    )
    assert [p.name for p in (copy / resume.SET_ASIDE).iterdir()] == ["6"]


def test_a_damaged_checkpoint_is_not_scored(copy):
    flip_a_bit(copy / "checkpoints/6/model")
    with pytest.raises(UserError, match=r"checkpoints/6 is damaged"):
        trained.load(copy, "latest")


def test_damaged_scores_are_named(folder, copy):
    (copy / "checkpoints/6/metrics/metrics").write_text("{")
    with pytest.raises(UserError, match=r"scores of a checkpoint.*the newest, 6"):
        loop.train_and_evaluate(tiny_config(folder), copy)


def test_a_step_that_is_not_there_is_refused(folder, copy, tmp_path):
    with pytest.raises(UserError, match=r"--step=5.*use best, latest or one of \[4, 6"):
        loop.train_and_evaluate(tiny_config(folder), copy, "5")
    with pytest.raises(UserError, match="holds no checkpoint"):
        loop.train_and_evaluate(tiny_config(folder), tmp_path / "new", "5")
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_told_to_end_saves_its_step_and_goes_on(
    folder, whole, tmp_path, monkeypatch
):
    report = loop._Run._report

    def signal_after(self, step, *args):
        report(self, step, *args)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop._Run, "_report", signal_after)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="Told to end: step . is saved"):
        loop.train_and_evaluate(tiny_config(folder, checkpoint_every=100), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    (saved,) = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert saved in (3, 4)
    state = loop.train_and_evaluate(tiny_config(folder, checkpoint_every=100), tmp_path)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(state), jax.device_get(whole[1])
    )


def test_a_full_disk_is_one_sentence_and_the_checkpoints_before_are_kept(folder, whole):
    workdir = folder / "full"
    command = [
        sys.executable,
        str(ROOT / "run_train.py"),
        f"--config={ROOT / 'configs/default.py'}",
        f"--workdir={workdir}",
        *flags(tiny_settings(folder)),  # The limit would cut files of the cache, too.
    ]

    # No file may grow beyond 200 kB: that of the optimizer's state does.
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 196; exec "$@"', "limited", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    (sentence,) = [x for x in done.stderr.splitlines() if x.startswith("Error")]
    assert done.returncode == 1
    assert "checkpoints could not be written (File too large)" in sentence
    assert not checkpoints.has_checkpoints(workdir)
    state = loop.train_and_evaluate(tiny_config(folder), workdir)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(state), jax.device_get(whole[1])
    )
