"""Start a config on Ray Serve, wait until it answers, and end it cleanly."""

import logging
import os
import re
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from types import FrameType
from typing import Any
from urllib.error import URLError

import ray
import typer
from ray import serve
from ray.serve import context
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

from serve_app.cli.needs import find_lacking_resources
from serve_app.errors import ConfigError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What Ray and the libraries in its workers read when they start. A value that is set already is kept."""
POLL_SECONDS = 0.2
FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
OUR_ERROR = re.compile(r"serve_app\.errors\.\w+: (.+)")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What the command line says. `host` and `port` replace the file's; without `address` a cluster is started."""

    host: str | None = None
    port: int | None = None
    address: str | None = None
    dashboard: bool = False
    verbose: bool = False


def run_server(document: Mapping[str, Any], options: ServerOptions) -> None:
    """Serve a config that was checked, until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is in use, the cluster lacks something, or a deployment fails; one line for each reason.
    """
    http = {**(document.get("http_options") or {})}
    http |= {key: value for key, value in (("host", options.host), ("port", options.port)) if value is not None}
    schema = ServeDeploySchema.model_validate({**document, "http_options": http})
    url = find_free_url(schema.http_options.host, schema.http_options.port)
    with stopped_by_signals(), cluster(options):
        lacking = find_lacking_resources(document, ray.cluster_resources())
        if lacking:
            raise ConfigError("\n".join(lacking))
        serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
        client: Any = context._get_global_client()
        client.deploy_apps(schema)
        wait_until_ready(url)
        typer.echo(f"Darkroom is ready: {url} (docs at /docs)")
        signal.pause()


def find_free_url(host: str, port: int) -> str:
    """Where callers on this machine will reach the server. Raises ConfigError where the port is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"http_options.port: {host}:{port} cannot be used ({error.strerror})") from error
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the block, wherever it is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        return


@contextmanager
def cluster(options: ServerOptions) -> Iterator[None]:
    """A Ray cluster of its own, or the one at `address`. Serve ends with the block; so does a cluster of its own."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    level = logging.INFO if options.verbose else logging.ERROR
    logging.getLogger("ray.serve").setLevel(level)
    ray.init(
        address=options.address or "local",
        namespace="serve",
        include_dashboard=options.dashboard if options.address is None else None,
        logging_level=level,
        log_to_driver=options.verbose,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)  # Ray replaces the handlers
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with redirect_stdout(sys.stderr if options.verbose else StringIO()):  # Ray reports that it ends its own actors
            serve.shutdown()
            ray.shutdown()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def wait_until_ready(url: str) -> None:
    """Wait until every application runs and `/readyz` answers 200.

    Raises:
        ConfigError: a deployment failed; a line for each says why.
    """
    while True:
        applications = serve.status().applications.values()
        failed = [one for one in applications if one.status in FAILED]
        if failed:
            raise ConfigError("\n".join(line for application in failed for line in find_reasons(application)))
        if all(one.status == ApplicationStatus.RUNNING for one in applications) and answers(f"{url}/readyz"):
            return
        time.sleep(POLL_SECONDS)


def find_reasons(application: Any) -> list[str]:
    """Why an application failed: the error of each deployment that has one, without its traceback."""
    messages = {name: one.message for name, one in application.deployments.items() if one.message}
    found = [
        f"deployments.{name}: {error}"
        for name, message in messages.items()
        for error in dict.fromkeys(OUR_ERROR.findall(message))
    ]
    return found or [" ".join(application.message.split())[-1000:]]


def answers(url: str) -> bool:
    """Whether a GET request is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (URLError, OSError):
        return False
