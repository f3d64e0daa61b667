"""The environment variable by which Serve's proxies load Darkroom's middleware."""

import logging
import os

PROXY_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Serve reads it where a proxy starts: it must be set where Ray starts, on every node."""
PROXY_CALLBACK = "serve_app.deployments.proxy_callback:proxy_middlewares"
"""Its value."""


log = logging.getLogger("darkroom.edge")


def warn_unguarded_proxy() -> None:
    """Log one line where this process, and so the proxy of its node, was started without the variable."""
    if os.environ.get(PROXY_VARIABLE) != PROXY_CALLBACK:
        log.warning(
            "Serve's proxy is not guarded: it reads whole bodies before their size, time and key are checked, and "
            "obeys X-Request-Disconnect-Disabled, X-Request-Timeout-Seconds and X-Session-ID. Start Ray with %s=%s",
            PROXY_VARIABLE,
            PROXY_CALLBACK,
        )
