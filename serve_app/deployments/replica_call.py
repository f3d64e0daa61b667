"""The call that lets a replica draw an image."""

from contextvars import Context
from typing import Any

from serve_app.deployments.image_run import ImageRun


def call_replica(handle: Any, run: ImageRun, ingress: str) -> Any:
    """The response stream of the replica that was chosen for `run`. See `ModelReplica.generate`."""
    assert run.given is not None
    # Serve's router tells calls apart by an id that it takes from the context: it is the same for all images of one
    # HTTP request, and then one call of two that are routed together is never sent.
    return Context().run(
        handle.generate.remote,
        run.request,
        run.context,
        run.saved,
        ingress=ingress,
        resumed=run.entry.is_resumed,
        suspect=run.given.is_suspect,
        alone=run.given.alone,
        target=run.given.view.unique_id,
    )
