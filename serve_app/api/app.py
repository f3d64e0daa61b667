"""The HTTP application: every route over one `Service`."""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from serve_app.api import health, problems, txt2img
from serve_app.api.body_limit import BodyLimit
from serve_app.api.service import Service


def create_app(service: Service) -> FastAPI:
    """Routes, errors, the body limit, and /docs that loads nothing from elsewhere."""
    app = FastAPIOffline(title="Darkroom", version=version("darkroom"), redoc_url=None, redirect_slashes=False)
    app.add_middleware(BodyLimit, limit=service.config.ingress.max_body_bytes)
    problems.install(app)
    app.include_router(txt2img.router(service))
    app.include_router(health.router(service))
    return app
