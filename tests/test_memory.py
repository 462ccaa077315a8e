"""Freed memory is used again."""

import ctypes
import subprocess
import sys

import pytest

# Page faults of the last four of six large arrays, each freed before the next.
PROGRAM = """
import resource, sys
import numpy as np
from fcn_jax import memory

if sys.argv[1] == "kept":
    memory.keep_freed()
for i in range(6):
    if i == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(16 * 2**20, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    # NumPy's own advice on huge pages would hide the faults.
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0", "PYTHONPATH": "."}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)
def test_memory_that_was_freed_takes_no_page_faults():
    assert faults("given back") > 40_000  # 64 MiB in pages of 4 KiB, four times.
    assert faults("kept") < 1_000


def test_without_glibc_it_is_nothing(monkeypatch):
    from fcn_jax import memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    memory.keep_freed()
