"""`GET /v1/results/{name}`: images that are fetched by signed links."""

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.native.native_errors import ProblemResponse


def router(dispatcher: Dispatcher) -> APIRouter:
    """The route of result links."""
    routes = APIRouter(tags=["results"])

    @routes.get(
        "/v1/results/{name}",
        response_class=Response,
        responses={404: {"model": ProblemResponse, "description": "The link is invalid, or the image is deleted."}},
    )
    async def fetch_result(name: str, expires: int, signature: str) -> Response:
        """Fetch an image by its signed link."""
        content, media_type = await run_in_threadpool(dispatcher.results.get, name, expires, signature)
        return Response(content, media_type=media_type)

    return routes
