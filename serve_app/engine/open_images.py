"""`OpenImages`: the images that an engine has accepted and not settled yet, and why it takes no more."""

import threading
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass

from serve_app.engine.image_future import ImageFuture
from serve_app.engine.passes import Pass
from serve_app.errors import DeviceLost, NotReady
from serve_app.requests.step_curve import Size


@dataclass(frozen=True)
class PassCalls:
    """`calls` model calls of a pass, of `rows` UNet rows each, at latent size `size`."""

    size: Size
    rows: int
    calls: int


class OpenImages:
    """Thread-safe. Its lock is held for moments only, never while the device works.

    Args:
        scale_factor: pixels of a latent.
    """

    def __init__(self, scale_factor: int) -> None:
        self._scale_factor = scale_factor
        self._changed = threading.Condition()
        self._passes: dict[ImageFuture, tuple[PassCalls, ...]] = {}
        self._refusal: NotReady | None = None
        self.is_handing_over = False
        self.is_lost = False

    def __len__(self) -> int:
        return len(self._passes)

    def add(self, first: Pass, enqueue: Callable[[Pass], None]) -> None:
        """Enqueue a request's first pass, unless no more are taken: then raise why."""
        future = first.future
        future.calls_left = first.calls_left
        passes = tuple(_calls_of(pass_, self._scale_factor) for pass_ in (first, first.following) if pass_ is not None)
        with self._changed:
            if self._refusal is not None:
                raise copy(self._refusal)
            self._passes[future] = passes
            enqueue(first)
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
        """Take no more, and settle all with `error`."""
        self.refuse(error)
        self.is_lost = self.is_lost or isinstance(error, DeviceLost)
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

    def calls_left(self) -> Iterable[PassCalls]:
        """The model calls that the open images still take, pass by pass. Takes no lock."""
        for future, passes in list(self._passes.items()):
            left = future.calls_left
            for one in reversed(passes):
                calls = min(one.calls, left)
                left -= calls
                yield PassCalls(one.size, one.rows, calls)

    def _forget(self, future: ImageFuture) -> None:
        with self._changed:
            self._passes.pop(future, None)
            self._changed.notify_all()


def _calls_of(pass_: Pass, scale_factor: int) -> PassCalls:
    size = (pass_.request.height // scale_factor, pass_.request.width // scale_factor)
    return PassCalls(size, 2 if pass_.guided else 1, pass_.table.num_model_calls)
