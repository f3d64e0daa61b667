"""Wait until the applications of a config answer."""

import time

from ray import serve
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ServeDeploySchema

from serve_app.cli.http_address import answers, find_address
from serve_app.cli.messages import StartStatus, print_note
from serve_app.cli.start_errors import find_start_errors, find_waiting
from serve_app.config.serve_file import IMPORT_PATH
from serve_app.errors import ConfigError

POLL_SECONDS = 0.1


def wait_until_ready(schema: ServeDeploySchema, status: StartStatus) -> None:
    """Wait until every application runs, and those of ours have warm models.

    Raises:
        ConfigError: an application cannot start. The error has a line for each reason.
    """
    names = [application.name for application in schema.applications]
    prefixes = [one.route_prefix for one in schema.applications if one.import_path == IMPORT_PATH]
    url = find_address(schema.http_options)
    silent = [f"{url}{prefix.rstrip('/')}/readyz" for prefix in prefixes if prefix is not None]
    told: set[str] = set()
    while True:
        known = serve.status().applications
        applications = [known[name] for name in names if name in known]
        errors = [line for application in applications for line in find_start_errors(application)]
        if errors:
            raise ConfigError("\n".join(errors))
        if len(applications) == len(names) and all(_runs(application) for application in applications):
            silent = [one for one in silent if not answers(one)]
            if not silent:
                return
        _tell_waiting(applications, told, status)
        time.sleep(POLL_SECONDS)


def _tell_waiting(applications: list[ApplicationStatusOverview], told: set[str], status: StartStatus) -> None:
    """Show which deployments are not up, and say once of each that the cluster has no room for it."""
    missing = [name for one in applications for name, state in one.deployments.items() if state.status != "HEALTHY"]
    status.show(f"Loading {', '.join(missing)}" if missing else "Starting Serve")
    for application in applications:
        for name, line in find_waiting(application).items():
            if name not in told:
                told.add(name)
                print_note(line)


def _runs(application: ApplicationStatusOverview) -> bool:
    return application.status == ApplicationStatus.RUNNING
