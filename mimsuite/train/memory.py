"""Keep the C library from giving memory back between steps.

A step frees and asks again for hundreds of megabytes of gradients. glibc returns large blocks to
the kernel at once, and every page then has to be faulted in and zeroed anew: about a tenth of a
ViT-B step on a CPU.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Raise glibc's thresholds for this process; does nothing with other C libraries."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _NEVER)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
