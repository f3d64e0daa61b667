"""Why an application does not start, in a few lines."""

import re
from collections.abc import Iterator

from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from serve_app.errors import shorten

OUR_ERROR = re.compile(
    r"^serve_app\.errors\.(?:ConfigError|ModelLoadError): (?P<lines>.+(?:\n(?:deployments|args)\..+)*)", re.MULTILINE
)
"""A mistake in the config at the end of a traceback. It may have a line for each key."""
EXCEPTION = re.compile(r"^[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*", re.MULTILINE)


def find_start_errors(application: ApplicationStatusOverview) -> list[str]:
    """A line for each reason why an application cannot start; none while it may start yet.

    An error of ours will be the same the next time, so it is told without waiting for Serve's further attempts.
    """
    messages = {name: one.message for name, one in application.deployments.items() if one.message}
    found = [line for name, message in messages.items() for line in _find_our_errors(name, message)]
    if found or application.status not in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
        return list(dict.fromkeys(found))
    return [f"deployments.{name}: {last_error(message)}" for name, message in messages.items()] or [
        last_error(application.message)
    ]


def find_waiting(application: ApplicationStatusOverview) -> dict[str, str]:
    """The deployments for which the cluster has no room, each with Serve's message."""
    return {
        name: f"deployments.{name}: {' '.join(one.message.split())}"
        for name, one in application.deployments.items()
        if "to be scheduled" in one.message
    }


def _find_our_errors(deployment: str, message: str) -> Iterator[str]:
    """The lines of the last error of ours: those before it are its causes."""
    errors = [found["lines"] for found in OUR_ERROR.finditer(message)]
    for line in errors[-1].splitlines() if errors else ():
        yield line if line.startswith(("deployments.", "args.")) else f"deployments.{deployment}: {line}"


def last_error(message: str) -> str:
    """The last exception of a traceback, else the end of the message."""
    errors = EXCEPTION.findall(message)
    return errors[-1] if errors else str(shorten(" ".join(message.split()), 400))
