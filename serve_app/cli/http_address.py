"""Where the server listens, and whether it answers there."""

import json
import socket
import ssl
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from ray.serve.schema import HTTPOptionsSchema

from serve_app.errors import ConfigError

EVERY_INTERFACE = ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound
ANSWER_SECONDS = 5


def find_address(http: HTTPOptionsSchema) -> str:
    """The address at which callers on this machine reach the server."""
    host = "127.0.0.1" if http.host in EVERY_INTERFACE else http.host
    scheme = "https" if http.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{http.port}"


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigError where the server could not listen."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(f"http_options.port: cannot listen at {host}:{port}: {error.strerror}") from error


def answers(url: str) -> bool:
    """Whether a GET request is answered with 200, or TLS with a demand for the caller's certificate.

    Raises:
        ConfigError: the answer says that the config cannot be served.
    """
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    try:
        with urlopen(url, timeout=ANSWER_SECONDS, context=unchecked) as response:  # noqa: S310  # made by find_address
            return response.status == 200
    except HTTPError as error:
        if error.headers.get("X-Error") == ConfigError.code:
            raise ConfigError(json.load(error)["error"]["message"]) from error
        return False
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except OSError as error:
        return isinstance(error, ssl.SSLError)
