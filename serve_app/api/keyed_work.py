"""`KeyedWork`: the work of one request with an `Idempotency-Key`, which all callers with that key share."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextvars import Context

from serve_app.api.key_claims import ClaimState, KeyClaim
from serve_app.api.stream_buffer import NumberedEvent, StreamBuffer
from serve_app.api.usage import Admission
from serve_app.errors import DarkroomError
from serve_app.requests.events import GeneratedImage, Progress, Queued
from serve_app.requests.idempotency import RequestKey

FOLLOWED_SECONDS = 2.0
"""Another ingress replica that has not asked for so long no longer counts as a caller."""


class KeyedWork:
    """It runs in a task of its own, and ends when no caller is left.

    Args:
        key: the request's.
        admission: the first caller's place within its limits. It is given back when the work ends.
        on_end: called once, when the work has ended.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        key: RequestKey,
        admission: Admission,
        on_end: Callable[["KeyedWork"], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self.fingerprint = admission.fingerprint
        self.admission = admission
        self.state: ClaimState = "asking"
        self.images: dict[int, GeneratedImage] = {}
        self._latest: dict[int, Queued | Progress] = {}  # never changed in place: other threads read it
        self._error: DarkroomError | None = None
        self._buffers: set[StreamBuffer] = set()
        self._followed_until = float("-inf")
        self._on_end = on_end
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self, events: AsyncGenerator[NumberedEvent, None]) -> None:
        """Begin to work. Serve cancels the calls made for a request when its caller hangs up: this is nobody's."""
        self._task = asyncio.get_running_loop().create_task(self._run(events), context=Context())
        self._task.add_done_callback(self._note_end)

    @property
    def is_followed(self) -> bool:
        """Whether another ingress replica has a caller who waits for it."""
        return self._clock() < self._followed_until

    def follow(self) -> None:
        """Another ingress replica asks. Any thread may call it."""
        self._followed_until = self._clock() + FOLLOWED_SECONDS

    def claim(self, ingress: str) -> KeyClaim:
        """How far it is, for another ingress replica. Any thread may call it."""
        return KeyClaim(ingress, self.fingerprint, self.state, tuple(self._latest.items()), self._error)

    async def read(self, buffer: StreamBuffer) -> AsyncGenerator[NumberedEvent, None]:
        """How far each image is, what happens from now on, and all images. Raises what the work raises."""
        assert self._task is not None
        for event in (*self._latest.items(), *self.images.items()):
            buffer.put(event)
        self._buffers.add(buffer)
        self._task.add_done_callback(buffer.put)
        try:
            while not isinstance(entry := await buffer.take(), asyncio.Task):
                yield entry
            entry.result()
        finally:
            self._task.remove_done_callback(buffer.put)
            self._buffers.discard(buffer)
            # Not at once: a task that is cancelled before its first step never ends what it was given.
            asyncio.get_running_loop().call_soon(self._end_if_unread)

    async def _run(self, events: AsyncGenerator[NumberedEvent, None]) -> None:
        try:
            async for index, event in events:
                if isinstance(event, GeneratedImage):
                    self.images[index] = event
                    self._latest = {other: one for other, one in self._latest.items() if other != index}
                else:
                    self._latest = {**self._latest, index: without_preview(event)}
                for buffer in self._buffers:
                    buffer.put((index, event))
        finally:
            await events.aclose()
            await self.admission.end()

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        self._error = error if isinstance(error, DarkroomError) else None
        self.state = "failed" if error is not None or task.cancelled() else "done"
        self._on_end(self)

    def _end_if_unread(self) -> None:
        assert self._task is not None
        if self._buffers or self._task.done():
            return
        left_s = self._followed_until - self._clock()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s + 0.01, self._end_if_unread)
        else:
            self.state = "failed"
            self._task.cancel()
            self._on_end(self)


def without_preview(event: Queued | Progress) -> Queued | Progress:
    """The event without its preview, which those who ask later do not get."""
    return Progress(event.step, event.steps, event.eta_s) if isinstance(event, Progress) else event
