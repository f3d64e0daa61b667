"""`BodyBudget`: how many bytes of request bodies one process holds at once."""

import asyncio
from collections import deque
from collections.abc import Iterator

from serve_app.errors import Overloaded

MAX_BODIES = 1000
"""The most bodies that are read at once. Each also takes what the server and the system have read ahead of it."""
PART_BYTES = 256 * 1024
"""Bodies are kept in parts of this size, however small the chunks in which they arrive."""


class HeldBody:
    """The parts of a body. `counted` are its bytes in the budget."""

    def __init__(self) -> None:
        self.counted = 0
        self.waits_for_room = False
        self._parts: deque[bytearray] = deque([bytearray()])

    def append(self, chunk: bytes) -> None:
        """Add a chunk."""
        if len(self._parts[-1]) >= PART_BYTES:
            self._parts.append(bytearray())
        self._parts[-1] += chunk

    def take_parts(self) -> Iterator[tuple[bytes, bool]]:
        """Each part, and whether another one follows. A part that was taken is not kept."""
        while self._parts:
            part = bytes(self._parts.popleft())
            yield part, bool(self._parts)


class BodyBudget:
    """Counts the bytes of all bodies, from their arrival until the response begins.

    Where there is no room, a body is not read on. If all that is held belongs to unfinished bodies, the oldest of them
    goes on, so that one is finished: at most `max_bytes` and one body are held.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self._unfinished: dict[HeldBody, None] = {}
        self._waiting: list[asyncio.Future[None]] = []

    def begin(self, body: HeldBody) -> None:
        """Count a body that is going to be read. Raises Overloaded where too many are read already."""
        if len(self._unfinished) >= MAX_BODIES:
            raise Overloaded(1)
        self._unfinished[body] = None

    async def add(self, body: HeldBody, chunk: bytes) -> None:
        """Count and keep a chunk, once there is room for it."""
        body.waits_for_room = True
        while self.held + len(chunk) > self.max_bytes and not self._must_go_on(body):
            changed = asyncio.get_running_loop().create_future()
            self._waiting.append(changed)
            await changed
        body.waits_for_room = False
        self.held += len(chunk)
        body.counted += len(chunk)
        body.append(chunk)

    def finish(self, body: HeldBody) -> None:
        """The body is complete. It still counts."""
        self._unfinished.pop(body, None)
        self._wake()

    def release(self, body: HeldBody) -> None:
        """Do not count the body any more."""
        self._unfinished.pop(body, None)
        self.held -= body.counted
        body.counted = 0
        self._wake()

    def _must_go_on(self, body: HeldBody) -> bool:
        return next(iter(self._unfinished)) is body and self.held == sum(one.counted for one in self._unfinished)

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()
