"""`WorkerPool`: threads for work on bodies and pixels, which would stop the event loop and so every other request."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar, TypeVarTuple, Unpack

from serve_app.errors import Overloaded

THREADS = 2
"""A 4096 x 4096 image takes up to 300 MB while it is decoded and resized, in each thread."""
MAX_JOBS = 128
"""The most jobs that run or wait."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class WorkerPool:
    """A few threads, and a bounded number of jobs that wait for one."""

    def __init__(self, threads: int = THREADS, max_jobs: int = MAX_JOBS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="worker-pool")
        self._room = BoundedSemaphore(max_jobs)

    async def run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """What `function` returns or raises. Raises Overloaded where too many jobs wait.

        A job whose caller is cancelled is dropped, or ends in its thread: that one is not free before.
        """
        if not self._room.acquire(blocking=False):
            raise Overloaded(1)
        job = self._threads.submit(function, *args)
        job.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(job)
