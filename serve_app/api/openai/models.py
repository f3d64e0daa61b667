"""OpenAI's list of models."""

from fastapi import APIRouter

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.openai.schemas import REFUSALS, ModelItem, ModelList


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.get("/v1/models", responses={401: REFUSALS[401]})
    async def models() -> ModelList:
        """Every model, and every name that stands for one."""
        return ModelList(data=[ModelItem(id=name) for name in (*dispatcher.config.models, *dispatcher.config.aliases)])

    @routes.get("/v1/models/{name}", responses={key: REFUSALS[key] for key in (401, 404)})
    async def model(name: str) -> ModelItem:
        """One model."""
        dispatcher.model_name(name)
        return ModelItem(id=name)

    return routes
