"""Freed memory is used again, and given back when asked."""

import ctypes
import subprocess
import sys

import pytest

needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)
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


def numbers(*command: str) -> list[float]:
    command = [sys.executable, "-c", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


# MiB of 256 that are resident after they were freed, then after they are given back: a
# hole, with a block above it that stays.
HOLE = """
import resource
import numpy as np
from fcn_jax import memory

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize() / 2**20

memory.keep_freed()
before = resident()
hole = np.ones(64 * 2**20, np.float32)
above = np.ones(2**20, np.float32)
del hole
print(resident() - before)
memory.give_back()
print(resident() - before)
"""


@needs_glibc
def test_memory_that_was_freed_takes_no_page_faults():
    assert numbers(PROGRAM, "given back")[0] > 0.9
    assert numbers(PROGRAM, "kept")[0] < 0.1


@needs_glibc
def test_what_is_free_is_given_back():
    kept, given_back = numbers(HOLE)
    assert kept > 250
    assert given_back < 50


def test_without_glibc_it_is_nothing(monkeypatch):
    from fcn_jax import memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    memory.keep_freed()
    memory.give_back()
