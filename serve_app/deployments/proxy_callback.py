"""The function that Serve's proxies call when they start. `config/proxy_variable.py` has the variable that names it.

Under HAProxy the ingress replicas call it: they answer HTTP themselves.
"""

from starlette.middleware import Middleware

from serve_app.api.middleware.edge import EdgeMiddleware
from serve_app.api.middleware.haproxy_client import HAProxyClientMiddleware
from serve_app.config.ray_environment import haproxy_tells_clients, trusted_balancers
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.published_settings import PublishedSettings


def proxy_middlewares() -> list[Middleware]:
    """The middleware before Serve. Serve puts each around those before it."""
    write_plain_lines()
    found = [Middleware(EdgeMiddleware, read_settings=PublishedSettings())]
    if haproxy_tells_clients():
        found.append(Middleware(HAProxyClientMiddleware, trusted=trusted_balancers()))
    return found
