"""How a server's process keeps memory and how often it looks through it, once what stays is there."""

from __future__ import annotations

import ctypes
import gc

M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which an allocation is a mapping of its own (mallopt(3))."""

MAPPED_FROM_BYTES = 256 * 1024
"""Sockets' and decodes' buffers are larger: unused they take no memory, and freed they go back to the system.
glibc raises this by itself to what was freed last, up to 32 MiB; then what a thousand sessions held stays for ever:
1200 that never connected left 830 MiB, with this 140 MiB."""


def settle() -> None:
    """Leave what was loaded out of every later search for garbage, and give large buffers back when they are freed.

    Call it once the models are loaded. A search stops the event loop, for longer the more there is to look through.
    """
    gc.collect()
    gc.freeze()
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    except (AttributeError, OSError):  # another libc
        return
