"""What running on a CPU asks of the process: threads, memory, and where torch may be called from."""

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
    """The cores to use: as configured, else all. Not what torch says, which differs by thread and under Ray is one."""
    return wanted or os.cpu_count() or 1


def prepare_cpu(threads: int) -> None:
    """Let torch use `threads` cores, and let the allocator keep what torch frees.

    By default glibc hands large tensors back to the system at once and pays for the same pages again in the next layer:
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
    """Do `work` in a thread that ends with it.

    Every thread that has run a parallel operator keeps a pool of OpenMP workers as long as it lives; with more workers
    than cores OpenMP stops spinning and sleeps at each barrier, and everything takes half as long again.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def claim_cores(device: torch.device, threads: int) -> None:
    """On a CPU, give the calling thread `threads` cores for torch; a thread with one keeps no pool.

    It also becomes what threads get that have not run torch yet: the last to claim should be the one with most.
    """
    if device.type == "cpu":
        torch.get_num_threads()  # at its first use of torch a thread takes what was claimed last, by whomever
        torch.set_num_threads(threads)
