"""The talk's second client: a proxy that forwards its users' bodies.

python examples/python/proxy.py [URL] [PORT]
"""

import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY_BYTES = 64 * 1024


def handler(url: str) -> type[BaseHTTPRequestHandler]:
    """A handler that sends every POST on to `url` and its answer back, errors too."""

    class Forward(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > MAX_BODY_BYTES:
                self.send_error(413)
                return
            request = urllib.request.Request(url, self.rfile.read(length), {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request) as answer:
                    self.reply(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                self.reply(error.code, error.headers["Content-Type"], error.read())

        def reply(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Forward


def main(url: str = "http://localhost:8000/txt2img/", port: str = "8080") -> None:
    """Serve until stopped."""
    ThreadingHTTPServer(("127.0.0.1", int(port)), handler(url)).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:3])
