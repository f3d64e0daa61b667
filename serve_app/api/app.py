"""The HTTP application: every route over one `Service`."""

import logging
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from opentelemetry.trace import TracerProvider
from starlette.middleware.cors import CORSMiddleware

from serve_app.api import health, problems, results, txt2img
from serve_app.api.a1111 import listings, progress
from serve_app.api.a1111 import routes as a1111_routes
from serve_app.api.callers import AuthMiddleware, read_keys
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.middleware.access_log import AccessLogMiddleware
from serve_app.api.middleware.body_limit import BodyLimitMiddleware
from serve_app.api.middleware.trace_requests import add_tracing
from serve_app.api.native import presets
from serve_app.api.native import routes as native_routes
from serve_app.api.openai import models
from serve_app.api.openai import routes as openai_routes
from serve_app.api.rate_limits import Limiter
from serve_app.api.results import ResultStore
from serve_app.api.service import Service

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
    app.add_middleware(BodyLimitMiddleware, limit=config.ingress.max_body_bytes, seconds=config.ingress.body_timeout_s)
    app.add_middleware(AuthMiddleware, callers=callers)
    if config.ingress.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=config.ingress.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    if provider is not None:
        add_tracing(app, provider)
    app.add_middleware(AccessLogMiddleware, log=logging.getLogger("darkroom.access"), note=service.note)
    problems.install(app)
    dispatcher = Dispatcher(service, Limiter(1 / config.ingress.num_replicas))
    store = ResultStore(config.results, secret.encode())
    for module in (txt2img, native_routes, presets, a1111_routes, progress, listings, models):
        app.include_router(module.router(dispatcher))
    app.include_router(openai_routes.router(dispatcher, store))
    app.include_router(results.router(store))
    app.include_router(health.router(service))
    return app
