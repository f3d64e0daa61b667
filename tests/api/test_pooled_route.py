"""Bodies are parsed in the worker pool: the errors are FastAPI's, and jobs that nobody waits for are bounded."""

import asyncio
import threading
from typing import Any

import pytest
from fastapi.routing import APIRoute

from serve_app.api.app import ROUTE_MODULES
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.pooled_route import PooledRoute
from serve_app.api.worker_pool import WorkerPool
from serve_app.errors import Overloaded
from tests.api.fakes import fake_app

LARGE = 40_000
"""Characters that take a body past what is parsed inline."""
JSON = {"Content-Type": "application/json"}


def test_every_route_with_a_body_is_pooled() -> None:
    client, _ = fake_app()
    dispatcher: Any = Dispatcher.__new__(Dispatcher)
    found = [route for module in ROUTE_MODULES for route in module.router(dispatcher).routes]
    with_body = [one for one in found if isinstance(one, APIRoute) and one.body_field is not None]
    assert len(with_body) >= 10
    assert [one.path for one in with_body if not isinstance(one, PooledRoute)] == []
    client.close()


@pytest.mark.parametrize("padding", [0, LARGE])
@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        ('{"prompt": "x", "width": "wide"%s}', 422, "width"),
        ('{"prompt": "x", "unknown": 1%s}', 422, "unknown"),
        ('{"prompt": "x"%s', 422, "body"),
        ('{"prompt": "x", "seed": ' + "9" * 5000 + "%s}", 400, "body"),
        ("[%s]", 422, "body"),
        ("null%s", 422, "body"),
        ('{"prompt": "\udcff"%s}', 400, "body"),
    ],
)
def test_errors_are_the_same_in_the_pool(content: str, status: int, field: str, padding: int) -> None:
    client, _ = fake_app()
    sent = (content % (" " * padding)).encode("utf-8", "surrogateescape")
    answer = client.post("/txt2img/", content=sent, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field), answer.text


def test_a_large_body_without_json_type_names_the_body() -> None:
    client, _ = fake_app()
    answer = client.post("/txt2img/", content=b"x" * LARGE, headers={"Content-Type": "text/plain"})
    assert "sent as application/json" in answer.json()["error"]["limit"]


def test_many_files_are_refused() -> None:
    client, _ = fake_app()
    files = [("image", ("x.png", b"x", "image/png"))] * 17
    assert client.post("/v1/images/edits", files=files, data={"prompt": "x"}).status_code == 400
    answer = client.post("/v1/images/edits", files=files[:3], data={"prompt": "x"})
    assert answer.json()["error"]["message"] == "image: must be one file, got '3 files'"


def test_more_jobs_than_the_pool_takes_are_refused_and_dropped_ones_count_until_they_end() -> None:
    pool, go_on = WorkerPool(threads=1, max_jobs=2), threading.Event()

    async def fill() -> None:
        jobs = [asyncio.create_task(pool.run(go_on.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.run(int)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        go_on.set()
        for _ in range(100):
            try:
                assert await pool.run(int) == 0
                return
            except Overloaded:
                await asyncio.sleep(0.01)
        raise AssertionError("the pool stays full")

    asyncio.run(fill())
