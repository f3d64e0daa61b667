"""The images in a replica's engine, and the streams that read each: a retry joins the image that runs already."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from serve_app.deployments.event_buffer import EngineEvent, EventBuffer
from serve_app.deployments.stream_leases import LEASE_SECONDS
from serve_app.errors import Cancelled
from serve_app.requests.events import GeneratedImage, ResumePoint
from serve_app.requests.request import GenerationRequest

if TYPE_CHECKING:
    from serve_app.engine.image_future import ImageFuture

Tell = Callable[[EngineEvent], None]
Submit = Callable[[Tell], Coroutine[Any, Any, "ImageFuture"]]


class RunningImage:
    """One image. It ends when its last stream does. Use it on one event loop.

    With `lingers`, it goes on for a lease's time without a stream: gRPC ends the streams of an ingress replica that has
    died, and another one may want its images. An ingress replica that lives says that it wants an image no more.

    Args:
        request: what is drawn.
        submit: lets the engine draw it.
        lingers: as above.
        share: the part of a batch that it takes.
    """

    def __init__(self, request: GenerationRequest, submit: Submit, lingers: bool, share: float = 0.0) -> None:
        self.request = request
        self.share = share
        self.is_counted = False
        self._lingers = lingers
        self._buffers: dict[EventBuffer, bool] = {}
        self._point: ResumePoint | None = None
        self._submission = asyncio.create_task(submit(self._tell))
        self._task = asyncio.create_task(self._finish())
        for task in (self._submission, self._task):
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def is_joinable(self) -> bool:
        """Whether it runs, or is finished. Any thread may ask."""
        if self._task.done():
            return not self._task.cancelled() and self._task.exception() is None
        return not self._task.cancelling()

    @property
    def is_unread(self) -> bool:
        """Whether it runs without a stream. Any thread may ask."""
        return not self._buffers and not self._task.done()

    @contextmanager
    def reading(self, is_watched: bool) -> Iterator[EventBuffer]:
        """While inside, the buffer gets the events: the last resume point, what comes, and progress if `is_watched`."""
        buffer = EventBuffer()
        self._buffers[buffer] = is_watched
        if self._point is not None:
            buffer.put(self._point)
        self._task.add_done_callback(buffer.close)
        try:
            yield buffer
        finally:
            self._task.remove_done_callback(buffer.close)
            self._leave(buffer, self._lingers)

    def end_reading(self, buffer: EventBuffer) -> None:
        """End a stream whose ingress replica is silent, and the image where it has no other one."""
        buffer.close()
        self._leave(buffer, lingers=False)

    def join(self) -> None:
        """Another ingress replica wants it."""
        self._lingers = True

    def drop(self) -> None:
        """An ingress replica wants it no more: it ends with its last stream."""
        self._lingers = False
        self._end_if_unread()

    def on_end(self, callback: Callable[[], object]) -> None:
        """Call it when the image is finished, or has failed."""
        self._task.add_done_callback(lambda _: callback())

    async def submitted(self) -> "ImageFuture":
        """The engine's future. Raises what the engine refuses."""
        return await asyncio.shield(self._submission)

    def result(self) -> GeneratedImage:
        """The image. Raises Cancelled, and why it failed."""
        if not self._task.done() or self._task.cancelled():
            raise Cancelled("stopped by its owner")
        return self._task.result()

    async def _finish(self) -> GeneratedImage:
        return await asyncio.wrap_future(await self._submission)

    def _tell(self, event: EngineEvent) -> None:
        """Any thread may call it."""
        if isinstance(event, ResumePoint):
            self._point = event
        for buffer, is_watched in list(self._buffers.items()):
            if is_watched or isinstance(event, ResumePoint):
                buffer.put(event)

    def _leave(self, buffer: EventBuffer, lingers: bool) -> None:
        if self._buffers.pop(buffer, None) is None:
            return
        if lingers and not self._buffers:
            asyncio.get_running_loop().call_later(LEASE_SECONDS, self._end_if_unread)
        else:
            self._end_if_unread()

    def _end_if_unread(self) -> None:
        if not self._buffers:
            self._task.cancel()


class RunningImages:
    """The images of one replica that have an idempotency key, and for a lease's time after their end."""

    def __init__(self) -> None:
        self._images: dict[str, RunningImage] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def has(self, key: str, request: GenerationRequest) -> bool:
        """Whether `open` would join an image."""
        image = self._images.get(key)
        return image is not None and image.is_joinable and image.request == request

    def unread_share(self) -> float:
        """Batches of the images that run without a stream. Any thread may call it."""
        return sum(image.share for image in list(self._images.values()) if image.is_unread)

    def open(self, key: str, request: GenerationRequest, submit: Submit, share: float = 0.0) -> RunningImage:
        """The image with this key if it is of the same request, else a new one. An empty key is none."""
        image = self._images.get(key)
        if image is not None and image.is_joinable:
            if image.request == request:
                image.join()
                return image
            key = ""
        image = RunningImage(request, submit, lingers=bool(key), share=share)
        if key:
            self._loop = asyncio.get_running_loop()
            self._images[key] = image
            image.on_end(lambda: self._note_end(key, image))
        return image

    def find(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys whose images run here, or have just been finished. Any thread may call it."""
        found = ((key, self._images.get(key)) for key in keys)
        return [key for key, image in found if image is not None and image.is_joinable]

    def drop(self, key: str) -> None:
        """See `RunningImage.drop`. Any thread may call it."""
        image = self._images.get(key)
        if image is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(image.drop)

    def _note_end(self, key: str, image: RunningImage) -> None:
        if image.is_joinable:
            asyncio.get_running_loop().call_later(LEASE_SECONDS, self._forget, key, image)
        else:
            self._forget(key, image)

    def _forget(self, key: str, image: RunningImage) -> None:
        if self._images.get(key) is image:
            del self._images[key]
