"""Where the server listens, and what its answers mean."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ray.serve.schema import HTTPOptionsSchema

from serve_app.cli.http_address import answers, find_address, require_free_port
from serve_app.errors import ConfigError


class Answers(BaseHTTPRequestHandler):
    """The path is the status."""

    def do_GET(self) -> None:
        status = int(self.path[1:])
        self.send_response(status)
        self.send_header("X-Error", "invalid_config" if status == 500 else "not_ready")
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "the sampler cannot be followed"}}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_only_200_is_an_answer(server: str) -> None:
    assert answers(f"{server}/200")
    assert not answers(f"{server}/503")
    with pytest.raises(ConfigError, match="the sampler cannot be followed"):
        answers(f"{server}/500")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert not answers(f"http://127.0.0.1:{probe.getsockname()[1]}")


def test_a_port_in_use_is_refused(server: str) -> None:
    port = int(server.rpartition(":")[2])
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(ConfigError, match=f"http_options.port: cannot listen at {host}:{port}: Address already in"):
            require_free_port(host, port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("darkroom.example", "http://darkroom.example:8000"),
    ],
)
def test_the_address_is_one_that_callers_can_use(host: str, url: str) -> None:
    assert find_address(HTTPOptionsSchema(host=host)) == url
