"""The function that Serve's proxies call when they start. `config/proxy_variable.py` has the variable that names it."""

from starlette.middleware import Middleware

from serve_app.api.middleware.edge import EdgeMiddleware
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.published_settings import PublishedSettings


def proxy_middlewares() -> list[Middleware]:
    """The middleware before Serve."""
    write_plain_lines()
    return [Middleware(EdgeMiddleware, read_settings=PublishedSettings())]
