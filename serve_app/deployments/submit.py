"""From the replica's event loop into the engine that is in use."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from serve_app.deployments.running_images import Tell
from serve_app.errors import NotReady
from serve_app.requests.events import ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest

if TYPE_CHECKING:
    from serve_app.engine.engine import Engine
    from serve_app.engine.image_future import ImageFuture


async def submit(
    current: "Callable[[], Engine]",
    request: GenerationRequest,
    context: CallerContext,
    resume_from: ResumePoint | None,
    tell: Tell,
) -> "ImageFuture":
    """Submit to the engine in use, also where it changes meanwhile. It tells progress only where that may be watched.

    Raises what `Engine.submit` raises.
    """
    from serve_app.engine.passes import Callbacks  # it imports torch: see `load_engine`

    may_be_watched = context.progress or context.previews > 0 or bool(context.idempotency_key)
    callbacks = Callbacks(on_progress=tell if may_be_watched else None, on_resume_point=tell)
    while True:
        engine = current()
        try:
            return await off_the_loop(partial(engine.submit, request, context, callbacks, resume_from))
        except NotReady:
            if engine is current():
                raise


async def off_the_loop(submit: "Callable[[], ImageFuture]") -> "ImageFuture":
    """Submit in a thread, as a sampler may have to be compiled. A caller that leaves meanwhile cancels."""
    submitted = asyncio.get_running_loop().run_in_executor(None, submit)
    try:
        return await asyncio.shield(submitted)
    except asyncio.CancelledError:
        submitted.add_done_callback(_cancel_submitted)
        raise


def _cancel_submitted(submitted: "asyncio.Future[ImageFuture]") -> None:
    if submitted.exception() is None:
        submitted.result().cancel()
