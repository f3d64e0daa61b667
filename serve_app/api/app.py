"""`create_app`: the HTTP application, all routes and middleware over one `Service`."""

import logging
import secrets
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from opentelemetry.trace import TracerProvider
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware

from serve_app.api import health, results
from serve_app.api.a1111 import listings, progress
from serve_app.api.a1111 import routes as a1111_routes
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.error_responses import internal_error_response
from serve_app.api.exception_handlers import add_exception_handlers
from serve_app.api.key_file import KeyFile
from serve_app.api.key_peers import NoPeers
from serve_app.api.keyed_requests import KeyedRequests
from serve_app.api.link_secret import LEAST_BYTES, read_secret
from serve_app.api.middleware.access_log import AccessLogMiddleware
from serve_app.api.middleware.auth import AuthMiddleware
from serve_app.api.middleware.body_budget import BodyBudget
from serve_app.api.middleware.body_limit import BodyLimitMiddleware, BodyLimits
from serve_app.api.middleware.lost_client import LostClientMiddleware
from serve_app.api.middleware.parse_limits import ParseLimitMiddleware
from serve_app.api.middleware.security_headers import SecurityHeadersMiddleware
from serve_app.api.middleware.trace_requests import add_tracing
from serve_app.api.native import presets
from serve_app.api.native import routes as native_routes
from serve_app.api.openai import routes as openai_routes
from serve_app.api.result_store import ResultStore
from serve_app.api.service import Service
from serve_app.api.usage import LocalUsage, Usage
from serve_app.config import IngressConfig

ROUTE_MODULES = (
    native_routes,
    presets,
    a1111_routes,
    progress,
    listings,
    openai_routes,
    results,
    health,
)
"""All routes. A new route is a file with a function `router(dispatcher)`, and a line here."""

COMMON_RESPONSES = {
    400: "The body cannot be decoded.",
    401: "The key is missing or unknown.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "A field is invalid; the error names it.",
}
"""Error responses of every route, for OpenAPI."""


def create_app(
    service: Service,
    config: IngressConfig,
    *,
    results: ResultStore | None = None,
    usage: Usage | None = None,
    keyed: KeyedRequests | None = None,
    provider: TracerProvider | None = None,
    server_sends_request_id: bool = False,
) -> FastAPI:
    """The application, with /docs that needs no network.

    Args:
        results: keeps images for their links. It is given where the secret of the links outlives the application.
        usage: counts what callers use. It is given where it outlives the application.
        keyed: requests with an `Idempotency-Key`. They are given where they outlive the application.
        provider: receives a span for each request; None turns tracing off.
        server_sends_request_id: True behind Ray Serve's proxy, which sets `X-Request-ID` itself.

    Raises:
        ConfigError: the key file, the secret file or the store of results cannot be used.
    """
    app = FastAPIOffline(
        title="Darkroom",
        version=version("darkroom"),
        redoc_url=None,
        redirect_slashes=False,
        responses={status: {"description": text} for status, text in COMMON_RESPONSES.items()},
    )
    add_exception_handlers(app)
    keys = KeyFile(Path(config.keys.file)) if config.keys.file else None
    add_middleware(app, service, config, keys, provider, server_sends_request_id)
    results = results or ResultStore(config.results, read_secret(config.results, secrets.token_bytes(LEAST_BYTES)))
    keyed = keyed or KeyedRequests(NoPeers(), config.idempotency)
    dispatcher = Dispatcher(service, config, usage or LocalUsage(), results, keys, keyed)
    app.state.workers = dispatcher.workers
    for module in ROUTE_MODULES:
        app.include_router(module.router(dispatcher))
    return app


def add_middleware(
    app: FastAPI,
    service: Service,
    config: IngressConfig,
    keys: KeyFile | None,
    provider: TracerProvider | None,
    server_sends_request_id: bool,
) -> None:
    """All middleware, the innermost first: each line encloses those before it."""
    app.add_middleware(ParseLimitMiddleware)
    app.add_middleware(LostClientMiddleware)
    app.add_middleware(
        BodyLimitMiddleware,
        limits=BodyLimits(config.max_body_bytes, config.body_timeout_s),
        budget=BodyBudget(config.max_total_body_bytes),
    )
    app.add_middleware(AuthMiddleware, keys=keys, anonymous=config.anonymous)
    if config.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=config.cors_origins, allow_methods=["*"], allow_headers=["*"])
    if provider is not None:
        add_tracing(app, provider)
    # Starlette has one of these too, but outside of all other middleware, where the access log cannot see its response.
    app.add_middleware(ServerErrorMiddleware, handler=internal_error_response)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(
        AccessLogMiddleware,
        logger=logging.getLogger("darkroom.access"),
        count_response=service.count_response,
        server_sends_request_id=server_sends_request_id,
    )
