"""Serve a config that was checked: start it, wait until it answers, end it cleanly."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import context
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ServeDeploySchema

from serve_app.cli.http_address import find_address, require_free_port
from serve_app.cli.local_files import find_missing_files
from serve_app.cli.messages import StartStatus, print_answer, print_note
from serve_app.cli.needs import find_lacking_resources
from serve_app.cli.ray_cluster import ClusterOptions, RayCluster, open_cluster
from serve_app.cli.start_errors import last_error
from serve_app.cli.wait_ready import wait_until_ready
from serve_app.config.ray_environment import runs_haproxy
from serve_app.errors import ConfigError, DarkroomError

WATCH_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ServerOptions(ClusterOptions):
    """What the command line says. `host` and `port` replace the file's."""

    host: str | None = None
    port: int | None = None


def run_server(document: Mapping[str, Any], options: ServerOptions) -> None:
    """Serve the content of a config file until SIGINT or SIGTERM. A second signal ends it at once.

    Raises:
        ConfigError: it cannot start. The error has a line for each reason.
        DarkroomError: the Ray cluster has ended.
    """
    http = {**(document.get("http_options") or {})}
    http |= {key: value for key, value in (("host", options.host), ("port", options.port)) if value is not None}
    schema = ServeDeploySchema.model_validate({**document, "http_options": http})
    if options.starts_cluster:
        if runs_haproxy() and schema.http_options.ssl_certfile:
            raise ConfigError("http_options.ssl_certfile: needs --front-end python, since Ray's HAProxy has no TLS")
        require_free_port(schema.http_options.host, schema.http_options.port)
    answer, status = sys.stdout, StartStatus()
    status.show("Starting Ray")
    try:
        with suppress(KeyboardInterrupt), _ray_output(options), open_cluster(options) as cluster:
            _refuse_lacks(document, cluster, options)
            _tell_addresses(cluster, options)
            with _serving(schema):
                wait_until_ready(schema, status)
                status.clear()
                print_answer(f"Darkroom is ready: {find_address(schema.http_options)} (docs at /docs)", answer)
                _watch()
    finally:
        status.clear()


@contextmanager
def _ray_output(options: ServerOptions) -> Iterator[None]:
    """Ray writes its workers' lines and its own reports to standard output: move them, or drop them."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stderr if options.verbose else nowhere):
        yield


def _refuse_lacks(document: Mapping[str, Any], cluster: RayCluster, options: ServerOptions) -> None:
    """Raise ConfigError with a line for each resource that the cluster lacks, and each file that is not here."""
    where = "this machine" if options.starts_cluster else "the cluster"
    found = find_lacking_resources(document, cluster.resources, where)
    if options.starts_cluster:
        for application in document["applications"]:
            found += find_missing_files(application)
    if found:
        raise ConfigError("\n".join(found))


def _tell_addresses(cluster: RayCluster, options: ServerOptions) -> None:
    if options.verbose:
        print_note(f"Log files: {cluster.log_folder}")
    if options.dashboard and options.starts_cluster:
        print_note(f"Ray's dashboard: http://{cluster.dashboard_url}")


@contextmanager
def _serving(schema: ServeDeploySchema) -> Iterator[None]:
    """Give Serve the applications, and take them away at the end. Requests in progress are finished first.

    Serve itself ends as well if it was started here.
    """
    joined = _serve_is_running()
    try:
        serve.start(
            proxy_location=schema.proxy_location,
            http_options=schema.http_options.model_dump(),
            grpc_options=schema.grpc_options.model_dump(),
            logging_config=schema.logging_config,
            tracing_config=schema.tracing_config,
            controller_options=schema.controller_options,
        )
        client: Any = context._get_global_client()
        client.deploy_apps(schema)
    except RayError as error:
        raise ConfigError(f"Serve does not take the config: {last_error(str(error))}") from error
    try:
        yield
    finally:
        # A second signal raises KeyboardInterrupt here: then nothing is waited for.
        with suppress(RayError, KeyboardInterrupt):
            # Serve's shutdown kills HAProxy at once: until the applications have ended, it passes their responses on.
            if joined or runs_haproxy():
                client.delete_apps([application.name for application in schema.applications])
            if not joined:
                serve.shutdown()


def _serve_is_running() -> bool:
    try:
        context._get_global_client()
    except RayServeException:
        return False
    return True


def _watch() -> None:
    """Return never. Raises DarkroomError when the cluster does not answer any more."""
    while True:
        time.sleep(WATCH_SECONDS)
        try:
            serve.status()
        except (RayError, RayServeException) as error:
            raise DarkroomError(f"the Ray cluster has ended: {last_error(str(error))}") from error
