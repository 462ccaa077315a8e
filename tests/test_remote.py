"""Runs and prepared data in an object store, gs://."""

import errno
import json
import os
import re
import subprocess
import sys
import time

import example_bucket
import jax
import numpy as np
import pytest
from etils.epath import backend
from example_runs import ROOT, flags, tiny_settings
from fsspec.implementations import memory
from test_reporting import read_events, read_lines

from fcn_jax.data import builder, prepared
from fcn_jax.data import folder as folder_lib
from fcn_jax.errors import UserError
from fcn_jax.reporting import log
from fcn_jax.training import checkpoints

DATA = "gs://bucket/data"


class Store(memory.MemoryFileSystem):
    """An object store in memory: nothing can be appended to or renamed."""

    protocol = ("gs", "gcs")
    cachable = False
    error = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(re.sub("^gc?s://", "", os.fspath(path)))

    def _open(self, path, mode="rb", **kwargs):
        assert "a" not in mode and "+" not in mode
        return super()._open(path, mode, **kwargs)

    def mv(self, *args, **kwargs):
        raise AssertionError("An object store cannot rename.")

    def put_file(self, source, target, **kwargs):
        if Store.error and source.endswith(".json"):
            raise Store.error
        return super().put_file(source, target, **kwargs)

    def get_file(self, source, target, **kwargs):
        if Store.error and source.endswith(".json"):
            raise Store.error
        return super().get_file(source, target, **kwargs)


@pytest.fixture
def store(monkeypatch):
    """The objects, by name."""
    for name in Store.protocol:
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, name, Store)
    monkeypatch.setattr(Store, "store", {})
    monkeypatch.setattr(Store, "pseudo_dirs", [""])
    monkeypatch.setattr(Store, "error", None)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield Store.store
    backend.fsspec_backend._get_filesystem.cache_clear()


def fetch(contents, folder):
    """Writes objects, given as name and content, into a folder; returns it."""
    for name, content in contents:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def run_of(store, folder):
    """The run gs://bucket/run, on the local disk."""
    contents = ((name[1:], file.getvalue()) for name, file in store.items())
    return fetch(contents, folder) / "bucket/run"


def test_a_log_in_a_store_is_that_on_a_disk(store, tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    for workdir in (tmp_path / "disk", "gs://bucket/run"):
        with log.RunLog(workdir) as run:
            run.scalars(1, {"loss": 0.5})
            run.flush()
            run.scalars(2, {"loss": 0.25})
            run.images(2, {"one": picture})
        time.sleep(1.1)  # TensorBoard's files are named by the second.
        with log.RunLog(workdir, resume_step=1) as run:
            run.scalars(2, {"loss": 0.125})
    there = run_of(store, tmp_path / "store")
    assert read_lines(there) == read_lines(tmp_path / "disk")
    assert [line["loss"] for line in read_lines(there)] == [0.5, 0.125]
    for folder in (there, tmp_path / "disk"):
        events = read_events(folder)
        tags = [(e.step, v.tag) for e in events for v in e.summary.value]
        assert tags == [(1, "loss"), (2, "loss"), (2, "one"), (2, "loss")]
        starts = [e.step for e in events if e.HasField("session_log")]
        assert starts == [1, 2]


def test_what_was_flushed_to_a_store_outlives_a_kill(store, tmp_path, monkeypatch):
    run = log.RunLog("gs://bucket/run")
    run.scalars(1, {"loss": 1})
    run.flush()
    run.scalars(2, {"loss": 2})
    there = run_of(store, tmp_path / "killed")
    assert [line["step"] for line in read_lines(there)] == [1]
    assert [v.tag for e in read_events(there) for v in e.summary.value] == ["loss"]
    # Without a flush, lines are written every now and then.
    monkeypatch.setattr(log, "_STORE_SECONDS", -1)
    run.scalars(3, {"loss": 3})
    there = run_of(store, tmp_path / "later")
    assert [line["step"] for line in read_lines(there)] == [1, 2, 3]
    # Nothing was logged since the last flush, so nothing is added to TensorBoard.
    run.flush()
    count = len(store)
    run.close()
    assert len(store) == count


def test_a_prepared_set_is_built_once_and_fetched_elsewhere(
    store, voc, tmp_path, monkeypatch, capfd
):
    config = folder_lib.scan(str(voc))
    assert prepared.find(config.name, DATA, cache=tmp_path / "a") is None
    first = prepared.prepare(config, DATA, cache=tmp_path / "a")
    assert first.is_relative_to(tmp_path / "a/gs/bucket/data")
    assert {name.rsplit("/")[-1] for name in store} == set(os.listdir(first))
    assert list(store)[-1].endswith("/dataset_info.json")
    assert "Uploading" in capfd.readouterr().err

    monkeypatch.setattr(prepared, "_build", None)
    second = prepared.prepare(config, DATA, cache=tmp_path / "b")
    third = prepared.find(config.name, DATA + "/", cache=tmp_path / "c")
    assert "Fetching: 100%" in capfd.readouterr().err
    records = list(prepared.Source(first, "train"))
    assert len(records) == 3
    for other in (second, third):
        assert list(prepared.Source(other, "train")) == records
        assert [p.name for p in other.parent.iterdir()] == [other.name]
    # What is in the cache is not fetched again.
    monkeypatch.setattr(Store, "error", AssertionError())
    assert prepared.prepare(config, DATA, cache=tmp_path / "b") == second
    assert prepared.find(config.name, DATA, cache=tmp_path / "c") == third


def test_an_upload_that_was_cut_off_is_no_set_and_is_done_again(
    store, voc, tmp_path, monkeypatch
):
    config = folder_lib.scan(str(voc))
    monkeypatch.setattr(Store, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        prepared.prepare(config, DATA, cache=tmp_path / "a")
    assert any("array_record" in name for name in store)
    monkeypatch.setattr(Store, "error", None)
    assert prepared.find(config.name, DATA, cache=tmp_path / "b") is None
    # It was built, so only the upload is made up for.
    monkeypatch.setattr(prepared, "_build", None)
    prepared.prepare(config, DATA, cache=tmp_path / "a")
    assert prepared.find(config.name, DATA, cache=tmp_path / "b")


def test_a_fetch_that_was_cut_off_leaves_nothing(store, voc, tmp_path, monkeypatch):
    config = folder_lib.scan(str(voc))
    prepared.prepare(config, DATA, cache=tmp_path / "a")
    monkeypatch.setattr(prepared, "_build", None)
    for error in (KeyboardInterrupt(), OSError(errno.ENOSPC, "No space")):
        monkeypatch.setattr(Store, "error", error)
        with pytest.raises(type(error)):
            prepared.prepare(config, DATA, cache=tmp_path / "b")
        assert not [p for p in tmp_path.glob("b/**/*.*") if p.suffix != ".lock"]
    monkeypatch.setattr(Store, "error", None)
    # What a kill leaves is removed, too.
    (lock,) = tmp_path.glob("b/**/*.lock")
    wreck = (
        lock.with_suffix("")
        / f"incomplete.fetched_{builder.SegmentationBuilder.VERSION}"
    )
    wreck.mkdir()
    path = prepared.prepare(config, DATA, cache=tmp_path / "b")
    assert len(prepared.Source(path, "val")) == 2 and not wreck.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("Please install gcsfs"), ["install 'fcn_jax[gcs]'"]),
        (FileNotFoundError("b/nobody"), ["no such bucket", "check its name"]),
        (RuntimeError("Anonymous\n  caller"), ["(Anonymous caller)", "gcloud auth"]),
        (OSError("Forbidden"), ["(Forbidden)", "gcloud auth"]),
    ],
)
def test_errors_of_a_store_are_one_sentence_each(
    store, voc, tmp_path, monkeypatch, error, words
):
    def fail(*args, **kwargs):
        raise error

    config = folder_lib.scan(str(voc))
    monkeypatch.setattr(prepared, "_build", None)  # Nothing is built in vain.
    for name in ("pipe_file", "exists"):
        monkeypatch.setattr(Store, name, fail)
        with pytest.raises(UserError) as caught:
            prepared.prepare(config, DATA, cache=tmp_path)
        sentence = str(caught.value)
        assert sentence.startswith(DATA) and "\n" not in sentence
        assert all(word in sentence for word in words)


@pytest.fixture
def server(monkeypatch):
    """A server that gcsfs, and the libraries under Orbax, take for Google's."""
    pytest.importorskip("gcsfs", reason="needs the extra gcs")
    with example_bucket.Server("bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


FIND = (
    "import sys; from fcn_jax.data import prepared; from fcn_jax.errors import *\n"
    "try: prepared.find('a_set', sys.argv[1])\n"
    "except UserError as error: print(error)"
)


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_read_is_told_so_without_a_stack_trace(server, status, tmp_path):
    server.refusal = status
    done = command(sys.executable, "-c", FIND, DATA, HOME=str(tmp_path)).communicate()
    assert re.fullmatch(f"{DATA}.* cannot be read .*gcloud auth.*\n", done[0])
    assert done[1] == ""


def command(*args, **env):
    return subprocess.Popen(
        args,
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_run_in_a_bucket_is_that_on_a_disk(server, folder, whole, tmp_path):
    cache = {"compilation_cache": str(folder / "cache")}
    settings = tiny_settings(folder) | {"data.dir": DATA} | cache
    train = ("run_train.py", "--config=configs/default.py", *flags(settings))
    objects = server.buckets["bucket"]

    def start(script, *args):
        args = (script, "--workdir=gs://bucket/run", *args)
        return command(sys.executable, *args, HOME=str(tmp_path / "home"))

    def finish(*args):
        process = start(*args)
        process.output = process.communicate()
        return process

    # Killed in the middle of a checkpoint, and again after it.
    for name in ("checkpoints/2/_CHECKPOINT_METADATA", "checkpoints/2/commit_success"):
        deadline = time.monotonic() + 100
        with start(*train) as process:
            while not any(n.startswith(f"run/{name}") for n in list(objects)):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.001)
            process.kill()
        if name.endswith("METADATA"):
            assert "run/checkpoints/2/commit_success.txt" not in objects
            scored = finish("run_eval.py")
            assert scored.returncode == 1
            assert "holds no checkpoint" in scored.output[1]
    done = finish(*train)
    assert done.returncode == 0, done.output
    assert re.search("Resuming gs://bucket/run at step [2-5]", done.output[0])

    done = finish("run_eval.py", "--step=latest")
    assert done.returncode == 0, done.output
    done = finish(
        "run_predict.py",
        f"--input={folder}/source/JPEGImages",
        "--output=gs://bucket/o",
    )
    assert len([name for name in objects if name.startswith("o/")]) == 11, done.output

    # Its objects, as files, are a workdir like any other.
    there = fetch(((n, content) for n, (_, content) in objects.items()), tmp_path)
    assert read_lines(there / "run") == read_lines(whole[0])
    with checkpoints.open_folder(there / "run", write=False) as checkpointer:
        variables = checkpoints.restore_variables(checkpointer, 6, whole[1].variables)
    jax.tree.map(np.testing.assert_array_equal, variables, whole[1].variables)
    scores = json.loads((there / "run/eval_val_6.json").read_text())
    assert scores["mean_iou"] == read_lines(whole[0])[-1]["val/mean_iou"]
    assert {p.name for p in (there / "run/overlays").iterdir()} == {"d.png", "e.png"}
