"""AUTOMATIC1111's progress and interruption: of the caller's own task, by its name or the latest without one."""

import base64
import hashlib
from typing import Any

from fastapi import APIRouter, Request

from serve_app.api.a1111.a1111_errors import A1111_ERRORS
from serve_app.api.a1111.schemas import (
    ProgressResponse,
    ProgressState,
    TaskProgressBody,
    TaskProgressResponse,
)
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.middleware.auth import caller_of
from serve_app.api.pooled_route import PooledRoute
from serve_app.requests.events import Queued

LATEST = "latest"
"""The task of a request that names none, where the caller has a key."""
SESSION_HEADERS = ("x-forwarded-for", "user-agent")
"""What tells callers apart that have no key and come through one proxy: AUTOMATIC1111's clients send no session."""


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=PooledRoute, tags=["automatic1111"], responses=A1111_ERRORS)

    @routes.get("/sdapi/v1/progress")
    async def progress(request: Request, skip_current_image: bool = False) -> ProgressResponse:
        """How far the caller's latest request without a task id is."""
        owner = caller_of(request.scope).name
        found = await dispatcher.service.progress_of(latest_task(request), owner, preview=not skip_current_image)
        if found is None:
            return ProgressResponse(progress=0.0, eta_relative=0.0, state=ProgressState())
        if isinstance(found, Queued):
            state = ProgressState(job=LATEST, job_count=1)
            return ProgressResponse(progress=0.0, eta_relative=found.estimated_start_s, state=state)
        preview = base64.b64encode(found.preview).decode() if found.preview and not skip_current_image else None
        state = ProgressState(job=LATEST, job_count=1, sampling_step=found.step, sampling_steps=found.steps)
        return ProgressResponse(
            progress=found.step / found.steps, eta_relative=found.eta_s, state=state, current_image=preview
        )

    @routes.post("/internal/progress")
    async def task_progress(body: TaskProgressBody, request: Request) -> TaskProgressResponse:
        """How far a task of the caller's is, by its `force_task_id`."""
        owner = caller_of(request.scope).name
        found = await dispatcher.service.progress_of(body.id_task, owner, preview=body.live_preview)
        if found is None:
            return TaskProgressResponse(active=False, queued=False, completed=True)
        if isinstance(found, Queued):
            return TaskProgressResponse(active=False, queued=True, completed=False, textinfo=f"{found.position} before")
        preview = base64.b64encode(found.preview).decode() if found.preview and body.live_preview else None
        return TaskProgressResponse(
            active=True,
            queued=False,
            completed=False,
            progress=found.step / found.steps,
            eta=found.eta_s,
            live_preview=f"data:image/png;base64,{preview}" if preview else None,
            id_live_preview=found.step,
        )

    @routes.post("/sdapi/v1/interrupt")
    @routes.post("/sdapi/v1/skip")
    async def interrupt(request: Request, task: str | None = None) -> dict[str, Any]:
        """Stop the caller's own task after its next step: its response has the partial images."""
        await dispatcher.service.interrupt(task or latest_task(request), caller_of(request.scope).name)
        return {}

    return routes


def latest_task(request: Request) -> str:
    """The name of the caller's latest task without a name. Without a key, each session has one of its own."""
    if caller_of(request.scope).sha256:
        return LATEST
    session = "\n".join(",".join(request.headers.getlist(name)) for name in SESSION_HEADERS)
    return f"{LATEST}-{hashlib.sha256(session.encode()).hexdigest()}"
