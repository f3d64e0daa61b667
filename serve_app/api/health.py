"""`GET /healthz`: the process answers. `GET /readyz`: every model can draw now."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.middleware.auth import caller_of
from serve_app.api.native.native_errors import ProblemResponse
from serve_app.errors import ConfigError, NotReady


class Health(BaseModel):
    """The answer where all is well."""

    status: Annotated[str, Field(description="Always ok.")] = "ok"


class ReadyResponse(Health):
    """The answer where every model can draw."""

    config_errors: Annotated[
        list[str], Field(description="Mistakes in the config, if a change was refused or a model cannot follow it.")
    ] = []


def router(dispatcher: Dispatcher) -> APIRouter:
    """The health routes."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> Health:
        """Tell that the process is alive."""
        return Health()

    @routes.get("/readyz", responses={503: {"model": ProblemResponse, "description": "A model has no replica."}})
    async def readyz(request: Request) -> ReadyResponse:
        """Tell that every model has a replica that answers, or is scaled to zero."""
        try:
            missing = await dispatcher.service.missing_models()
        except ConfigError as error:
            if dispatcher.config.keys.file is None or caller_of(request.scope).sha256:
                raise
            raise ConfigError("a model cannot follow its config: send a key to read why") from error
        if missing:
            raise NotReady(f"no replica is up yet: {', '.join(missing)}")
        errors = await dispatcher.service.config_errors()
        if dispatcher.keys is not None:
            errors = [*errors, *dispatcher.keys.mistake.splitlines()]
        if errors and dispatcher.config.keys.file is not None and not caller_of(request.scope).sha256:
            # They name paths and presets.
            errors = [f"{len(errors)} {'mistake' if len(errors) == 1 else 'mistakes'}: send a key to read it"]
        return ReadyResponse(config_errors=errors)

    return routes
