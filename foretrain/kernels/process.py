"""Process-wide settings that make training on a CPU faster."""

from __future__ import annotations

import ctypes
import platform


def tune_allocator() -> bool:
    """Keep freed tensor memory in the process instead of handing it back at every step.

    glibc maps each large block afresh and unmaps it when freed, so each big temporary of a training
    step costs page faults again. Raising both thresholds keeps the pages. Process-wide; the resident
    size stays at its peak. False where the C library has no ``mallopt`` (not glibc).
    """
    if platform.system() != "Linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    m_trim_threshold, m_mmap_threshold = -1, -3
    return bool(mallopt(m_mmap_threshold, 1 << 30)) and bool(mallopt(m_trim_threshold, (1 << 31) - 1))
