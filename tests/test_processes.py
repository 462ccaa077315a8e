"""Runs of several processes, which talk through the loopback device."""

import json
import signal
import time

import jax
import numpy as np
import pytest
from example_pod import pod, run_pod
from example_runs import ROOT, flags, tiny_settings
from orbax.checkpoint import v1 as ocp

from fcn_jax import processes
from fcn_jax.errors import UserError
from fcn_jax.training import checkpoints

STEPS = 20


def arguments(folder, workdir, **changes):
    settings = tiny_settings(folder) | {
        "batch_size": 4,
        "eval_batch_size": 4,
        "num_steps": STEPS,
        "checkpoint_every": 1000,
        "eval_every": 1000,
        "compilation_cache": str(folder / "pod_cache"),
    }
    settings |= {name.replace("__", "."): value for name, value in changes.items()}
    return [
        "run_train.py",
        f"--config={ROOT / 'configs/default.py'}",
        f"--workdir={workdir}",
        *flags(settings),
    ]


def outcome(workdir):
    """What a run logged, and its final checkpoint."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    path = workdir / checkpoints.FOLDER / str(STEPS)
    like = jax.tree.map(  # On the one device of this process, not where they were.
        lambda x: np.empty(x.shape, x.dtype),
        {
            name: ocp.checkpointables_metadata(path).metadata[name]
            for name in ("model", "training")
        },
        is_leaf=lambda x: hasattr(x, "shape"),
    )
    loaded = ocp.load_checkpointables(path, like)
    return [json.loads(line) for line in lines], jax.tree.leaves(loaded)


def assert_same_outcome(a, b):
    assert a[0] == b[0]
    jax.tree.map(np.testing.assert_array_equal, a[1], b[1])


@pytest.fixture(scope="module")
def whole(folder):
    """One process with four devices, undisturbed."""
    workdir = folder / "pod_1x4"
    ((code, output),) = run_pod(*arguments(folder, workdir), processes=1, devices=4)
    assert code == 0, output
    assert "Process 0 of 1: 4 cpu device(s) of 4" in output
    return outcome(workdir)


def test_two_processes_train_and_score_as_one_bit_for_bit(folder, whole):
    workdir = folder / "pod_2x2"
    (code, output), (other_code, other) = run_pod(*arguments(folder, workdir))
    assert (code, other_code) == (0, 0), output + other
    assert "Process 0 of 2: 2 cpu device(s) of 4" in output
    assert "Process 1 of 2: 2 cpu device(s) of 4" in other
    assert "step" not in other and "mean IoU" not in other  # Process 0 logs, alone.
    assert_same_outcome(outcome(workdir), whole)

    # With the rows of every image spread over both processes.
    scored = run_pod("run_eval.py", f"--workdir={workdir}", "--mesh=1,1,-1")
    assert [code for code, _ in scored] == [0, 0], scored
    scores = json.loads((workdir / f"eval_val_{STEPS}.json").read_text())
    logged = next(line for line in whole[0] if "val/mean_iou" in line)
    assert scores["mean_iou"] == logged["val/mean_iou"]
    # Two images on four devices: two places are empty, no pixel counts twice.
    assert scores["num_images"] == 2


@pytest.mark.parametrize(
    "before, after",
    [
        pytest.param((2, 2), (1, 4), id="2to1"),
        pytest.param((1, 4), (2, 2), id="1to2", marks=pytest.mark.slow),
    ],
)
def test_a_preempted_run_goes_on_with_other_processes(folder, whole, before, after):
    workdir = folder / f"pod_preempted_{before[0]}"
    command = arguments(folder, workdir)
    with pod(*command, processes=before[0], devices=before[1]) as started:
        started[0].await_line("step 2/")
        started[-1].kill(signal.SIGTERM)
        assert [p.wait() for p in started] == [75] * before[0], started[0].output
        said = started[0].output
    (saved,) = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    assert 2 <= saved < STEPS
    assert f"Told to end: step {saved} is saved" in said
    done = run_pod(*command, processes=after[0], devices=after[1])
    assert [code for code, _ in done] == [0] * after[0], done
    assert f"at step {saved}." in done[0][1]
    assert_same_outcome(outcome(workdir), whole)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_others_with_a_message(folder, whole, victim):
    command = arguments(
        folder,
        folder / f"pod_killed_{victim}",
        num_steps=100_000,
        init_from=str(folder / "pod_1x4"),  # Which all of them read.
    )
    with pod(*command, "--heartbeat_timeout=3") as started:
        started[0].await_line("step 2/")
        started[victim].kill(signal.SIGKILL)
        began = time.monotonic()
        other = started[1 - victim]
        # It notices by a transfer that fails, or is ended by JAX's service before.
        said = {
            75: "Error: the connection to another process was lost",
            -signal.SIGABRT: "most likely indicates that another task died",
        }
        code = other.wait(60)
        assert code in said and said[code] in other.output, (code, other.output)
        assert time.monotonic() - began < 30


def test_processes_that_differ_are_told_where(folder):
    workdir = folder / "pod_different"
    done = run_pod(*arguments(folder, workdir), each=[[], ["--config.seed=7"]])
    for code, output in done:
        assert code == 1, output
        assert (
            "Error: The processes differ in --config.seed (0 in process 0, 7 in "
            "process 1); start all with the same flags and config.\n"
        ) in output
    assert not workdir.exists()


def test_a_workdir_that_is_not_shared_is_refused(folder):
    homes = [folder / "home_0", folder / "home_1"]
    for home in homes:
        home.mkdir()
    done = run_pod(*arguments(folder, "runs/mine"), cwds=homes)
    for code, output in done:
        assert code == 1, output
        assert "--workdir=" in output and "is not the same folder" in output
        assert "is not seen by 1;" in output
    assert [list(home.iterdir()) for home in homes] == [[], []]


def test_an_absent_coordinator_is_waited_for_as_long_as_was_said():
    args = ["--coordinator=localhost:9", "--num_processes=2", "--process_id=1"]
    with pod(
        "run_eval.py", "--workdir=x", "--connect_timeout=1", *args,
        processes=1, by_hand=False,
    ) as (process,):  # fmt: skip
        assert process.wait(60) == 1
    (error,) = [line for line in process.lines if line.startswith("Error")]
    assert "Process 1 of 2 waited 1 s" in error and "localhost:9" in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "a:1"}, "without --num_processes and --process_id"),
        ({"num_processes": 2}, "without --coordinator and --process_id"),
        (
            {"coordinator": "a", "num_processes": 2, "process_id": 0},
            "--coordinator=a must be HOST:PORT",
        ),
        (
            {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
            "--process_id=2 with --num_processes=2",
        ),
        ({"distributed": True, "connect_timeout": 0}, "--connect_timeout=0"),
    ],
)
def test_flags_of_processes_that_make_no_sense_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        processes.start(**given)


def test_no_cluster_is_said_and_not_passed_over():
    ((code, output),) = run_pod(
        "run_eval.py", "--workdir=x", "--distributed", processes=1, by_hand=False
    )
    assert code == 1
    assert "Error: --distributed: JAX found no cluster here" in output
