"""What Serve itself knows of this application: what is scaled to zero, whether all is up, and at which address."""

from typing import Any

from ray import serve
from ray.serve import context
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from serve_app.config.names import deployment_of


def find_status() -> ApplicationStatusOverview | None:
    """This replica's application as the controller sees it. It blocks: call it in a thread."""
    return serve.status().applications.get(serve.get_replica_context().app_name)


def is_running() -> bool:
    """Whether every deployment has its replicas. It blocks: call it in a thread."""
    status = find_status()
    return status is not None and status.status == ApplicationStatus.RUNNING


def is_scaled_to_zero(model: str) -> bool:
    """Whether a model is meant to have no replica now, or wakes from that. It blocks: call it in a thread."""
    status = find_status()
    deployment = status.deployments.get(deployment_of(model)) if status is not None else None
    if deployment is None:
        return False
    scales = deployment.status in ("UPSCALING", "DOWNSCALING") and "RUNNING" not in deployment.replica_states
    return scales or (deployment.status == "HEALTHY" and not deployment.replica_states)


def count_replicas() -> int:
    """How many replicas this replica's deployment has."""
    return max(1, serve.get_replica_context().world_size or 1)


def find_unique_id() -> str:
    """This replica's id, which no other replica of its deployment has, or had before."""
    return serve.get_replica_context().replica_id.unique_id


def is_first_replica() -> bool:
    """Whether this is the first replica of its deployment."""
    return serve.get_replica_context().rank.rank == 0


def find_url() -> str:
    """Where callers on this machine reach the application."""
    client: Any = context._get_global_client()
    options = client.http_config
    everywhere = (None, "", "0.0.0.0", "::")  # noqa: S104  # compared, not bound
    host = "127.0.0.1" if options.host in everywhere else options.host
    scheme = "https" if options.ssl_certfile else "http"
    return f"{scheme}://{host}:{options.port}"
