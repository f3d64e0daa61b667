"""`StreamBuffer`: the events of one response, between its images and a client that may read slowly, or never."""

import asyncio
from collections import deque
from dataclasses import replace

from serve_app.requests.events import Event, GeneratedImage, Progress

NumberedEvent = tuple[int, Event]
"""Which image of the request, and what happened to it."""

Entry = NumberedEvent | asyncio.Task[None]
"""An event, or the task of an image that has ended."""

MAX_HELD_BYTES = 1024 * 1024
"""What a response holds of progress and previews that its client has not read."""
EVENT_BYTES = 512
"""What an event counts besides its preview."""


class StreamBuffer:
    """Never makes an image wait: where the client reads slowly, the latest progress and the latest preview are kept.

    Finished images are all kept. Of what went before them, the oldest goes first once `MAX_HELD_BYTES` are held; the
    latest of each image always stays.

    Args:
        max_preview_bytes: the most bytes of previews that are let out. Progress goes on without them.
    """

    def __init__(self, max_preview_bytes: int) -> None:
        self._entries: deque[Entry] = deque()
        self._news = asyncio.Event()
        self._held_bytes = 0
        self._preview_bytes_left = max_preview_bytes

    def put(self, entry: Entry) -> None:
        """Add an event, or the task of an ended image."""
        self._entries.append(entry)
        self._held_bytes += _size(entry)
        if self._held_bytes > MAX_HELD_BYTES:
            self._drop_outdated()
        self._news.set()

    async def take(self) -> Entry:
        """The oldest entry. Waits for one."""
        while not self._entries:
            self._news.clear()
            await self._news.wait()
        entry = self._entries.popleft()
        self._held_bytes -= _size(entry)
        return entry if isinstance(entry, asyncio.Task) else (entry[0], self._limit_previews(entry[1]))

    def _drop_outdated(self) -> None:
        """Drop events that a later one of the same image and kind replaces, until the rest is within the limit."""
        latest = {_kind(entry): entry for entry in self._entries}
        kept: deque[Entry] = deque()
        for entry in self._entries:
            if self._held_bytes > MAX_HELD_BYTES and _size(entry) and latest[_kind(entry)] is not entry:
                self._held_bytes -= _size(entry)
            else:
                kept.append(entry)
        self._entries = kept

    def _limit_previews(self, event: Event) -> Event:
        if not isinstance(event, Progress) or event.preview is None:
            return event
        self._preview_bytes_left -= len(event.preview)
        return event if self._preview_bytes_left >= 0 else replace(event, preview=None)


def _size(entry: Entry) -> int:
    """What counts of an entry, bytes: nothing of what is always kept."""
    if isinstance(entry, asyncio.Task) or isinstance(entry[1], GeneratedImage):
        return 0
    preview = entry[1].preview if isinstance(entry[1], Progress) else None
    return EVENT_BYTES + len(preview or b"")


def _kind(entry: Entry) -> object:
    """Of two entries of the same kind, the later one says all that the earlier one did."""
    if isinstance(entry, asyncio.Task):
        return entry
    index, event = entry
    return index, type(event), isinstance(event, Progress) and event.preview is not None
