"""One call that waits at Serve's router starts a replica of a model that has none."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.deployments.lost_work import STREAM_ERRORS, answer_of
from serve_app.errors import NotReady

AGAIN_SECONDS = 1.0
"""How long after a call it is looked whether another one is needed."""

log = logging.getLogger("darkroom.ingress")


class WakeCall:
    """Wakes one model.

    Args:
        handle: the model's deployment handle.
        on_failure: called with an error where no replica will start.
        on_end: called a while after every other call.
    """

    def __init__(self, handle: Any, on_failure: Callable[[NotReady], None], on_end: Callable[[], None]) -> None:
        self._handle = handle
        self._on_failure = on_failure
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Call, unless a call is under way."""
        if self._task is None or self._task.done():
            # Serve cancels the calls that were made for a request when its caller hangs up: this is nobody's.
            self._task = asyncio.create_task(self._call(), context=Context())

    async def _call(self) -> None:
        try:
            await answer_of(self._handle.options(stream=False).capabilities.remote())
        except DeploymentUnavailableError as error:
            return self._on_failure(NotReady(f"the model has no replica that works ({type(error).__name__})"))
        except STREAM_ERRORS as error:
            log.warning("a call that wakes the model failed: %s", type(error).__name__)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._on_end)
