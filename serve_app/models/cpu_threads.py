"""How a process runs torch on a CPU: threads, cores and memory."""

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
"""From glibc's malloc.h."""


def count_cores(wanted: int | None) -> int:
    """The number of cores to use: as configured, else all. Torch's own count differs by thread, and is 1 under Ray."""
    return wanted or os.cpu_count() or 1


def prepare_cpu(threads: int) -> None:
    """Let torch use `threads` cores, and let the allocator keep the memory that torch frees.

    By default glibc returns large tensors to the system at once and faults the same pages in again for the next layer:
    10,000 page faults a forward, a fifth of its time.
    """
    torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in (
            (M_ARENA_MAX, 1),
            (M_MMAP_THRESHOLD, 1 << 30),
            (M_TRIM_THRESHOLD, (1 << 31) - 1),
            (M_TOP_PAD, 64 << 20),
        ):
            libc.mallopt(option, value)


def run_apart(work: Callable[[], Result]) -> Result:
    """Do `work` in a thread of its own, which ends with it.

    A thread that has run a parallel operator keeps a pool of OpenMP workers as long as it lives. With more workers than
    cores OpenMP sleeps at each barrier instead of spinning, and every forward takes half as long again.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def claim_cores(device: torch.device, threads: int) -> None:
    """On a CPU, let the calling thread use `threads` cores for torch; a thread with one core keeps no pool.

    Threads that have not run torch yet get the same number, so the thread with the most cores should claim last.
    """
    if device.type == "cpu":
        torch.get_num_threads()  # a thread's first use of torch resets it to what was claimed last, by any thread
        torch.set_num_threads(threads)
