"""The HTTP application: every route over one `Service`."""

import logging
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from opentelemetry.trace import TracerProvider
from starlette.middleware.cors import CORSMiddleware

from serve_app.api import generate, health, presets, problems, results, txt2img
from serve_app.api.a1111 import drawing, lists, progress
from serve_app.api.access_log import AccessLog
from serve_app.api.body_limit import BodyLimit
from serve_app.api.callers import Doorkeeper, read_keys
from serve_app.api.desk import Desk
from serve_app.api.limiter import Limiter
from serve_app.api.openai import images, models
from serve_app.api.results import ResultStore
from serve_app.api.service import Service
from serve_app.api.tracing import add_tracing

EVERYWHERE = {
    400: "the body is no text, or no form",
    401: "no valid key, where keys are on",
    408: "the body took too long to arrive",
    413: "the body is over the limit",
    422: "a field is out of its limit; the error names it",
}
"""What any route may answer."""


def create_app(service: Service, secret: str = "", provider: TracerProvider | None = None) -> FastAPI:
    """Routes, errors, keys, limits, and /docs that loads nothing from elsewhere.

    `secret` signs result links; `provider` takes a span for each request, where tracing is on.
    """
    config = service.config
    app = FastAPIOffline(
        title="Darkroom",
        version=version("darkroom"),
        redoc_url=None,
        redirect_slashes=False,
        responses={status: {"description": text} for status, text in EVERYWHERE.items()},
    )
    callers = read_keys(Path(config.keys.file)) if config.keys.file else None
    app.add_middleware(BodyLimit, limit=config.ingress.max_body_bytes, seconds=config.ingress.body_timeout_s)
    app.add_middleware(Doorkeeper, callers=callers)
    if config.ingress.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=config.ingress.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    if provider is not None:
        add_tracing(app, provider)
    app.add_middleware(AccessLog, log=logging.getLogger("darkroom.access"), note=service.note)
    problems.install(app)
    desk = Desk(service, Limiter(1 / config.ingress.num_replicas))
    store = ResultStore(config.results, secret.encode())
    for module in (txt2img, generate, presets, drawing, progress, lists, models):
        app.include_router(module.router(desk))
    app.include_router(images.router(desk, store))
    app.include_router(results.router(store))
    app.include_router(health.router(service))
    return app
