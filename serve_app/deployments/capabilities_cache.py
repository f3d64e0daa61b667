"""What each model's replicas last said of what they can do."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

from serve_app.deployments.lost_work import STREAM_ERRORS, answer_of
from serve_app.errors import NotReady
from serve_app.requests.capabilities import ModelCapabilities

MAX_AGE_SECONDS = 10.0
"""An answer older than this is asked for anew, in the background."""
ANSWER_SECONDS = 5.0


class CapabilitiesCache:
    """The checkpoint's facts, without the operator's settings. They stay while a model is scaled to zero.

    Args:
        handles: each model's deployment handle.
        clock: seconds that never go back.
    """

    def __init__(self, handles: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._handles = handles
        self._clock = clock
        self._known: dict[str, ModelCapabilities] = {}
        self._asked_at: dict[str, float] = {}
        self._calls: dict[str, asyncio.Task[None]] = {}

    @property
    def known(self) -> Mapping[str, ModelCapabilities]:
        """What is known so far, by model."""
        return self._known

    async def get(self, model: str) -> ModelCapabilities:
        """A model's capabilities. Where none are known, a replica is started if needed, and waited for.

        Raises:
            NotReady: no replica works.
        """
        if model not in self._known:
            await asyncio.shield(self._call(model, self._ask_one))
        elif self._clock() - self._asked_at[model] > MAX_AGE_SECONDS:
            self._call(model, self.refresh)
        return self._known[model]

    async def refresh(self, model: str) -> None:
        """Ask the replicas that run. A model that is scaled to zero stays so, and what is known of it."""
        try:
            told = self._handles[model].broadcast("capabilities").results_async(timeout_s=ANSWER_SECONDS)
            answers = await answer_of(told)
            self._note(model, answers[-1])
        except (TimeoutError, *STREAM_ERRORS):
            self._asked_at[model] = self._clock()

    def _call(self, model: str, ask: Callable[[str], Any]) -> asyncio.Task[None]:
        """One call at a time for each model, whoever waits for it.

        It has a context of its own: Serve cancels the calls that were made for a request when its caller hangs up.
        """
        running = self._calls.get(model)
        if running is None or running.done():
            running = self._calls[model] = asyncio.create_task(ask(model), context=Context())
        return running

    async def _ask_one(self, model: str) -> None:
        try:
            self._note(model, await answer_of(self._handles[model].capabilities.remote()))
        except STREAM_ERRORS as error:
            raise NotReady(f"model {model} has no replica that works") from error

    def _note(self, model: str, capabilities: ModelCapabilities) -> None:
        self._known[model] = capabilities
        self._asked_at[model] = self._clock()
