"""`WorkerPool`: threads for work on bodies and pixels, which would stop the event loop and so every other request."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple, Unpack

from serve_app.errors import Overloaded

THREADS = 2
"""A 4096 x 4096 image takes up to 300 MB while it is decoded and resized, in each thread."""
MAX_WAITING = 128
"""The most jobs that wait for a thread, of all callers."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Turn = asyncio.Future[None]


class WorkerPool:
    """A few threads, for which the callers take turns, however many jobs one of them has.

    A job that waits is a coroutine: if its caller is cancelled, nothing of it is kept. For use on one event loop.
    """

    def __init__(self, threads: int = THREADS, max_waiting: int = MAX_WAITING) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="worker-pool")
        self._idle = threads
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()

    async def run(self, caller: str, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """What `function` returns or raises, called in a thread when it is `caller`'s turn.

        If this is cancelled while the function runs, the thread is free once the function returns.

        Raises:
            Overloaded: too many jobs wait.
        """
        if sum(map(len, self._waiting.values())) >= self._max_waiting:
            raise Overloaded(1)
        return await self.finish(caller, function, *args)

    async def finish(self, caller: str, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """As `run`, but never refused: for what is left to do with an image that was generated."""
        await self._take_turn(caller)
        loop = asyncio.get_running_loop()
        job = self._threads.submit(function, *args)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._pass_on))
        return await asyncio.wrap_future(job)

    async def _take_turn(self, caller: str) -> None:
        if self._idle:
            self._idle -= 1
            return
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            else:
                self._leave(caller, turn)
            raise

    def _pass_on(self) -> None:
        """A thread is free: the next caller's first job has it."""
        while self._waiting:
            caller, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._idle += 1

    def _leave(self, caller: str, turn: Turn) -> None:
        turns = self._waiting.get(caller)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[caller]
