"""Ray Serve's own dynamic batching: `@serve.batch` over the stock pipeline, rows of equal parameters together.

Bodies that come within the wait are grouped; a caller gets its picture when its group is done, not when the batch is.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from ray import serve
from ray.serve import Application

from benchmarks.peers.stock import StockPipeline, equal_groups

MAX_ROWS = 16
WAIT_SECONDS = 0.05

app = FastAPI()


@dataclass(frozen=True)
class Job:
    """A body and where its picture goes."""

    body: dict[str, Any]
    picture: asyncio.Future[bytes]


@serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.5})
@serve.ingress(app)
class RayBatch:
    """One replica."""

    def __init__(self, source: str) -> None:
        self._stock = StockPipeline(source)
        self._waiting: set[asyncio.Future[None]] = set()

    @app.post("/txt2img/")
    async def txt2img(self, body: dict[str, Any]) -> Response:
        """A PNG."""
        job = Job(body, asyncio.get_running_loop().create_future())
        waiting = asyncio.ensure_future(self._draw(job))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        return Response(await job.picture, media_type="image/png")

    @serve.batch(max_batch_size=MAX_ROWS, batch_wait_timeout_s=WAIT_SECONDS)
    async def _draw(self, jobs: list[Job]) -> list[None]:
        for group in equal_groups([job.body for job in jobs]):
            pictures = await asyncio.to_thread(self._stock.draw, [jobs[index].body for index in group])
            for index, picture in zip(group, pictures, strict=True):
                jobs[index].picture.set_result(picture)
        return [None] * len(jobs)

    @app.get("/readyz")
    async def readyz(self) -> str:
        """Up."""
        return "ready"


def build(args: dict[str, str]) -> Application:
    """For a Serve config; `args` holds the model's source."""
    return RayBatch.bind(args["source"])
