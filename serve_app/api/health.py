"""`GET /healthz`: the process answers. `GET /readyz`: every model is warmed up."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.native.native_errors import ProblemResponse
from serve_app.errors import NotReady


class Health(BaseModel):
    """The answer where all is well."""

    status: Annotated[str, Field(description="Always ok.")] = "ok"


class ReadyResponse(Health):
    """The answer where every model is warmed up."""

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

    @routes.get("/readyz", responses={503: {"model": ProblemResponse, "description": "A model is warming up."}})
    async def readyz() -> ReadyResponse:
        """Tell that every model has generated its warm-up image."""
        missing = await dispatcher.service.warming_up()
        if missing:
            raise NotReady(f"still warming up: {', '.join(missing)}")
        return ReadyResponse(config_errors=await dispatcher.service.config_errors())

    return routes
