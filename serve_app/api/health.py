"""`GET /healthz`: the process answers. `GET /readyz`: every model has drawn its warm-up image."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from serve_app.api.error_responses import ProblemResponse
from serve_app.api.service import Service
from serve_app.errors import NotReady


class Health(BaseModel):
    """All is well."""

    status: Annotated[str, Field(description="ok")] = "ok"


def router(service: Service) -> APIRouter:
    """Both routes."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> Health:
        """The process is alive."""
        return Health()

    @routes.get("/readyz", responses={503: {"model": ProblemResponse, "description": "a model is warming up"}})
    async def readyz() -> Health:
        """Every model can draw."""
        missing = await service.warming_up()
        if missing:
            raise NotReady(f"warming up: {', '.join(missing)}")
        return Health()

    return routes
