"""glibc's allocator -> one that keeps what a step frees: the next step asks for as much again.

Left alone it gives large blocks back to the system, which clears and maps them anew at each step. The values are those
of `man 3 mallopt`; where the C library is another one, nothing happens.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1  # bytes


def keep_freed_memory() -> None:
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_THRESHOLD, NEVER)
