"""Bodies are parsed in the worker pool: the errors are FastAPI's, and jobs that nobody waits for are bounded."""

import asyncio
import gc
import threading
import weakref
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


def test_more_jobs_than_may_wait_are_refused() -> None:
    pool, go_on = WorkerPool(threads=1, max_waiting=2), threading.Event()

    async def fill() -> None:
        jobs = [asyncio.create_task(pool.run("x", go_on.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.run("y", int)
        last = asyncio.create_task(pool.finish("y", int))
        go_on.set()
        assert await asyncio.gather(*jobs, last) == [True, True, True, 0]
        assert await pool.run("y", int) == 0

    asyncio.run(asyncio.wait_for(fill(), 30))


def test_nothing_is_kept_of_a_job_whose_caller_has_left() -> None:
    pool, go_on = WorkerPool(threads=1), threading.Event()

    class Body:
        pass

    async def leave() -> None:
        running = asyncio.create_task(pool.run("x", go_on.wait))
        await asyncio.sleep(0)
        body = Body()
        kept = weakref.ref(body)
        waiting = asyncio.create_task(pool.run("x", id, body))
        del body
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        del waiting
        await asyncio.sleep(0)  # the loop itself still has the result that was just awaited
        gc.collect()
        assert kept() is None
        running.cancel()
        go_on.set()
        assert await pool.run("x", int) == 0

    asyncio.run(asyncio.wait_for(leave(), 30))


def test_callers_take_turns_however_many_jobs_one_of_them_has() -> None:
    pool, go_on = WorkerPool(threads=1), threading.Event()
    done: list[str] = []

    async def greedy() -> None:
        first = asyncio.create_task(pool.run("greedy", go_on.wait))
        await asyncio.sleep(0)
        jobs = [asyncio.create_task(pool.run("greedy", done.append, "greedy")) for _ in range(20)]
        await asyncio.sleep(0)
        jobs.append(asyncio.create_task(pool.run("modest", done.append, "modest")))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, *jobs)

    asyncio.run(asyncio.wait_for(greedy(), 30))
    assert "modest" in done[:2]
