"""Settings of all tests."""

import os

# Before anything imports jax: the tests are made for the CPU, wherever they run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import example_folders  # noqa: E402
import example_runs  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from fcn_jax.training import loop  # noqa: E402

# Files whose tests take longest, so that none of them is left over for one worker.
LONGEST = ("test_processes.py", "test_end_to_end.py", "test_sharding.py")


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A data set, the compilation cache, and one undisturbed run of six steps."""
    folder = tmp_path_factory.mktemp("runs")
    example_folders.make_voc(folder / "source")
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def whole(folder):
    workdir = folder / "whole"
    return workdir, loop.train_and_evaluate(example_runs.tiny_config(folder), workdir)


@pytest.fixture
def voc(tmp_path):
    return example_folders.make_voc(tmp_path / "mine")


@pytest.fixture
def parallel(tmp_path):
    return example_folders.make_parallel(tmp_path / "mine")
