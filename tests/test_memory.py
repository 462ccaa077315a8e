"""Freed memory is used again."""

import ctypes
import subprocess
import sys

import pytest

# Page faults of the last four of six arrays of 64 MiB, each freed before the next, as
# shares of their pages. 41: PR_SET_THP_DISABLE; huge pages would hide the faults.
PROGRAM = """
import ctypes, resource, sys
import numpy as np
from fcn_jax import memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
if sys.argv[1] == "kept":
    memory.keep_freed()
for i in range(6):
    if i == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(16 * 2**20, np.float32)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults * resource.getpagesize() / (4 * 64 * 2**20))
"""


def faults(how: str) -> float:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)
def test_memory_that_was_freed_takes_no_page_faults():
    assert faults("given back") > 0.9
    assert faults("kept") < 0.1


def test_without_glibc_it_is_nothing(monkeypatch):
    from fcn_jax import memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    memory.keep_freed()
