"""Memory that is freed stays with the process, until it is given back."""

import ctypes
from collections.abc import Callable

# Of glibc's malloc.h: the free memory at the heap's end from which it is given back,
# how many blocks may lie outside the heap, and how many heaps there may be.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
    """Lets glibc reuse freed memory; elsewhere, nothing. To be called before threads.

    On a CPU, XLA takes the temporary memory of each step from malloc and frees it at
    the step's end. By default glibc gives blocks of that size back to the system, which
    hands them out again page by page, filled with zeros: of a narrow network some tenth
    of a step. In exchange the process needs more memory. ``docs/performance.md`` has
    the figures.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Gives the system what is free now, on glibc; elsewhere, nothing.

    To be called after work that is done once, such as reading a state or compiling: its
    holes are too small for the memory of a step, which comes on top.
    """
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable | None:
    return getattr(ctypes.CDLL(None), name, None)
