"""Memory that is freed stays with the process."""

import ctypes

# Of glibc's malloc.h: the free memory at the heap's end from which it is given back,
# how many blocks may lie outside the heap, and how many heaps there may be.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
    """Lets glibc reuse freed memory; elsewhere, nothing. To be called before threads.

    On a CPU, XLA takes the temporary memory of each step from malloc and frees it at
    the step's end. By default glibc gives blocks of that size back to the system, which
    hands them out again page by page, filled with zeros: a tenth of a step. In exchange
    the process needs more memory. ``docs/performance.md`` has the figures.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_ARENA_MAX, 1)
