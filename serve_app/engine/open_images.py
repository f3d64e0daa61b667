"""`OpenImages`: the images that an engine has accepted and not settled yet, and why it takes no more."""

import threading
from copy import copy
from dataclasses import replace

from serve_app.engine.image_future import ImageFuture
from serve_app.engine.passes import Pass
from serve_app.engine.thread_queues import Inbox, Jobs
from serve_app.errors import DeviceLost, NotReady
from serve_app.requests.work import PassWork, Work


class OpenImages:
    """Thread-safe. Its lock is held for moments only, never while the device works.

    Args:
        scale_factor: pixels of a latent.
        inbox: of the denoise loop, woken when the engine has ended.
        jobs: of the VAE worker, likewise.
    """

    def __init__(self, scale_factor: int, inbox: Inbox, jobs: Jobs) -> None:
        self._scale_factor = scale_factor
        self._inbox, self._jobs = inbox, jobs
        self._changed = threading.Condition()
        self._passes: dict[ImageFuture, Work] = {}
        self._refusal: NotReady | None = None
        self.is_handing_over = False
        self.has_ended = False

    def __len__(self) -> int:
        return len(self._passes)

    def add(self, first: Pass) -> None:
        """Enqueue a request's first pass, unless no more are taken: then raise why."""
        future = first.future
        future.calls_left = first.calls_left
        passes = first.work(self._scale_factor)
        with self._changed:
            if self._refusal is not None:
                raise copy(self._refusal)
            self._passes[future] = passes
            if first.needs_source:
                self._jobs.put(first)
            else:
                self._inbox.put(first)
        future.add_done_callback(lambda _: self._forget(future))

    def refuse(self, error: NotReady) -> None:
        """From now on `add` raises `error`; of several, the first one, but a lost device goes before all."""
        with self._changed:
            if self._refusal is None or isinstance(error, DeviceLost):
                self._refusal = error

    def hand_over(self, error: NotReady) -> None:
        """Take no more. The engine's threads see `is_handing_over`, and settle what they hold."""
        self.refuse(error)
        self.is_handing_over = True

    def end(self, error: NotReady) -> None:
        """Take no more, and settle all with `error`. The engine's threads see `has_ended`, and end."""
        self.refuse(error)
        self.has_ended = True
        self._inbox.put(None)
        self._jobs.put(None)
        with self._changed:
            left = list(self._passes)
        for future in left:
            future.settle(copy(error))

    def wait(self) -> None:
        """Until none is open."""
        with self._changed:
            self._changed.wait_for(lambda: not self._passes)

    @property
    def refusal(self) -> NotReady | None:
        """What `add` raises; None while it takes images."""
        return self._refusal

    def work_left(self) -> Work:
        """The model calls that the open images still take, pass by pass. Takes no lock."""
        found: list[PassWork] = []
        for future, passes in list(self._passes.items()):
            left = future.calls_left
            for one in reversed(passes):
                calls = min(one.calls, left)
                left -= calls
                found.append(replace(one, calls=calls))
        return tuple(found)

    def _forget(self, future: ImageFuture) -> None:
        with self._changed:
            self._passes.pop(future, None)
            self._changed.notify_all()
