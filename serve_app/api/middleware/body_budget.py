"""`BodyBudget`: how many bytes of request bodies one process holds at once."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator

from serve_app.errors import Overloaded

MAX_BODIES = 1000
"""The most bodies that are read at once. Each also takes what the server and the system have read ahead of it."""
MAX_BODIES_PER_OWNER = 250
SMALL_BYTES = 64 * 1024
"""Smaller bodies need no room: `MAX_BODIES` of them are 64 MB."""
PART_BYTES = 256 * 1024
"""Bodies are kept in parts of this size, however small the chunks in which they arrive."""


class HeldBody:
    """The parts of a body. `counted` are its bytes in the budget. `owner` says whose it is."""

    def __init__(self, owner: str = "") -> None:
        self.owner = owner
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
    goes on, so that one is finished. One owner may hold half, so that there is room for others. Small bodies are always
    read: at most `max_bytes`, a body for each owner and 64 MB of small ones are held.
    """

    def __init__(self, max_bytes: int, small_bytes: int = SMALL_BYTES) -> None:
        self.max_bytes = max_bytes
        self._small_bytes = small_bytes
        self.held = 0
        self._held_by: Counter[str] = Counter()
        self._unfinished: dict[HeldBody, None] = {}
        self._waiting: list[asyncio.Future[None]] = []

    def begin(self, body: HeldBody) -> None:
        """Count a body that is going to be read. Raises Overloaded where too many are read already."""
        own = sum(one.owner == body.owner for one in self._unfinished)
        if len(self._unfinished) >= MAX_BODIES or own >= MAX_BODIES_PER_OWNER:
            raise Overloaded(1)
        self._unfinished[body] = None

    async def add(self, body: HeldBody, chunk: bytes) -> None:
        """Count and keep a chunk, once there is room for it."""
        body.waits_for_room = True
        while not self._has_room(body, len(chunk)):
            changed = asyncio.get_running_loop().create_future()
            self._waiting.append(changed)
            await changed
        body.waits_for_room = False
        self.held += len(chunk)
        self._held_by[body.owner] += len(chunk)
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
        self._held_by[body.owner] -= body.counted
        if not self._held_by[body.owner]:
            del self._held_by[body.owner]
        body.counted = 0
        self._wake()

    def _has_room(self, body: HeldBody, size: int) -> bool:
        if body.counted + size <= self._small_bytes:
            return True
        own = [one for one in self._unfinished if one.owner == body.owner]
        held = self._held_by[body.owner]
        in_all = self.held + size <= self.max_bytes or _must_go_on(body, list(self._unfinished), self.held)
        return in_all and (held + size <= self.max_bytes // 2 or _must_go_on(body, own, held))

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()


def _must_go_on(body: HeldBody, unfinished: list[HeldBody], held: int) -> bool:
    """Whether `body` is the oldest, and nothing is held but unfinished bodies, which all wait."""
    return unfinished[0] is body and held == sum(one.counted for one in unfinished)
