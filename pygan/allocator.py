"""How the C library hands out memory; it has to be told before torch allocates, so nothing here imports torch."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def set_allocator() -> None:
    """Keep freed memory in the process and ask for huge pages (glibc only; elsewhere nothing happens).

    Large blocks are then not returned to the kernel and faulted in again at every operation. Settings of the user's
    environment are kept.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)  # an int: 2 GiB is the most it takes
