"""What stands before Serve: what it lets pass, what it refuses, and how little it holds meanwhile."""

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from serve_app.api.keys import new_key
from serve_app.api.middleware.body_budget import BodyBudget
from serve_app.api.middleware.body_limit import BodyLimitMiddleware, BodyLimits
from serve_app.api.middleware.edge import EdgeMiddleware
from serve_app.config import EdgeSettings
from serve_app.config.edge_settings import loosest

LIMITS: dict[str, Any] = {"max_body_bytes": 1000, "max_total_body_bytes": 4000, "body_timeout_s": 0.2}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for Serve: tells which headers and how much of a body it got."""
    body = await Request(scope, receive).body()
    headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
    await JSONResponse({"headers": headers, "bytes": len(body)})(scope, receive, send)


Sent = dict[str, str | bytes]


def edge(**settings: Any) -> TestClient:
    found = EdgeSettings(**{**LIMITS, **settings})

    async def read_settings() -> EdgeSettings:
        return found

    return TestClient(EdgeMiddleware(echo, read_settings))


def to_raw(headers: Sent) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()]


def test_headers_that_serve_obeys_do_not_reach_it() -> None:
    sent: Sent = {
        "X-Request-Disconnect-Disabled": "?1",
        "X-Request-Timeout-Seconds": "0.001",
        "X-Session-ID": b"\xe9",
        "serve_multiplexed_model_id": b"\xe9",
        "Serve-Multiplexed-Model-Id": "m",
        "X_Request_Timeout_Seconds": "1",
        "X-Request-ID": b"\xe9",
        "traceparent": b"\xe9",
        "X-Mine": b"\xe9",
    }
    got = dict(edge().get("/", headers=to_raw(sent)).json()["headers"])
    assert got.keys() & {name.lower() for name in sent} == {"x-mine"}
    named = edge().get("/", headers={"X-Request-ID": "order-8"}).json()["headers"]
    assert ["x-request-id", "order-8"] in named


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_a_large_body_is_refused_in_the_shape_of_the_api(path: str) -> None:
    answer = edge().post(path, content=b"x" * 1001)
    assert answer.status_code == 413
    assert "must be at most 1000 bytes" in answer.text
    assert answer.headers["x-request-id"]
    assert edge().post(path, content=iter([b"x" * 600] * 2)).status_code == 413
    assert edge().post(path, content=b"x" * 1000).json()["bytes"] == 1000


def test_without_a_key_no_body_is_read(tmp_path: Path) -> None:
    key, entry = new_key("ann")
    (tmp_path / "keys.json").write_text(f"[{entry}]")
    client = edge(keys_file=str(tmp_path / "keys.json"))
    refused: list[Sent] = [{}, {"Authorization": "Bearer no"}, {"Authorization": b"Basic \xe9"}]
    for header in refused:
        assert client.post("/v1/generate", content=b"x" * 2000, headers=to_raw(header)).status_code == 401
    sent = {"Authorization": f"Bearer {key}"}
    assert client.post("/v1/generate", content=b"x" * 1000, headers=sent).json()["bytes"] == 1000
    assert client.get("/v1/results/signed-link").status_code == 200, "the application decides where there is no body"


def test_a_key_file_that_is_not_here_leaves_the_check_to_the_application(tmp_path: Path) -> None:
    client = edge(keys_file=str(tmp_path / "elsewhere.json"))
    assert client.post("/v1/generate", content=b"x").json()["bytes"] == 1


def test_what_is_refused_is_logged_like_other_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="darkroom.access")
    edge().post("/v1/generate", content=b"x" * 2000)
    line = json.loads(caplog.records[-1].message)
    assert (line["status"], line["error"], line["path"]) == (413, "body_too_large", "/v1/generate")


def test_several_applications_share_the_loosest_settings() -> None:
    one = EdgeSettings(**LIMITS, keys_file="a")
    other = EdgeSettings(**{**LIMITS, "max_body_bytes": 3000}, keys_file="b")
    assert loosest([one, other]) == EdgeSettings(**{**LIMITS, "max_body_bytes": 3000})
    assert loosest([one]) == one
    assert loosest([]).max_body_bytes > 2**20


ADDRESSES = itertools.count(1)


def request_of(*chunks: tuple[float, bytes], address: str | None = None) -> tuple[Scope, Receive]:
    """A request whose chunks arrive one after the other, each after so many seconds. Each has another address."""
    client = (address or f"10.0.0.{next(ADDRESSES)}", 1)
    left = list(chunks)

    async def receive() -> Message:
        wait, chunk = left.pop(0)
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    return {"type": "http", "path": "/v1/generate", "headers": [], "client": client}, receive


async def call(app: Callable[..., Any], scope: Scope, receive: Receive) -> int:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


def test_bodies_wait_for_each_other_and_no_more_than_the_budget_is_held() -> None:
    budget, most = BodyBudget(1000, small_bytes=0), 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        most = max(most, budget.held)
        await asyncio.sleep(0.02)
        await echo(scope, receive, send)

    app = BodyLimitMiddleware(slow, BodyLimits(600, 5.0), budget)

    async def many() -> list[int]:
        return await asyncio.gather(*(call(app, *request_of((0, b"x" * 300), (0.01, b"x" * 300))) for _ in range(12)))

    assert asyncio.run(many()) == [200] * 12
    assert 600 <= most <= 1600
    assert budget.held == 0


def test_unfinished_bodies_that_fill_the_budget_do_not_stop_each_other() -> None:
    """Two bodies of 600 in a budget of 800: both are at 400 when it is full."""
    app = BodyLimitMiddleware(echo, BodyLimits(600, 5.0), BodyBudget(800, small_bytes=0))

    async def two() -> list[int]:
        chunks = [(0.0, b"x" * 200), (0.01, b"x" * 200), (0.01, b"x" * 200)]
        return await asyncio.gather(*(call(app, *request_of(*chunks)) for _ in range(2)))

    assert asyncio.run(two()) == [200, 200]


def test_a_body_without_room_is_told_to_come_back_and_a_slow_one_that_it_is_slow() -> None:
    budget = BodyBudget(1000, small_bytes=0)

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await echo(scope, receive, send)

    app = BodyLimitMiddleware(held, BodyLimits(900, 0.2), budget)

    async def both() -> list[int]:
        first = asyncio.create_task(call(app, *request_of((0, b"x" * 900))))
        await asyncio.sleep(0.05)
        second, slow, small = await asyncio.gather(
            call(app, *request_of((0, b"x" * 900))),
            call(app, *request_of((0, b"x"), (9, b"x"))),
            call(app, *request_of((0, b"x"))),
        )
        return [await first, second, slow, small]

    assert asyncio.run(both()) == [200, 429, 408, 200]
    assert budget.held == 0


def test_one_owner_leaves_room_for_others_and_small_bodies_need_none() -> None:
    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await echo(scope, receive, send)

    app = BodyLimitMiddleware(held, BodyLimits(900, 0.2), BodyBudget(1000, small_bytes=10))

    async def all_at_once() -> list[int]:
        greedy = [asyncio.create_task(call(app, *request_of((0, b"x" * 400), address="10.1.1.1"))) for _ in range(4)]
        await asyncio.sleep(0.05)
        modest = call(app, *request_of((0, b"x" * 400)))
        small = [call(app, *request_of((0, b"x" * 10), address="10.1.1.1")) for _ in range(20)]
        return [*await asyncio.gather(*greedy), *await asyncio.gather(modest, *small)]

    assert asyncio.run(all_at_once()) == [200, 429, 429, 429] + [200] * 21


def test_single_bytes_are_kept_together() -> None:
    seen: list[Message] = []

    async def first_message(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await JSONResponse({})(scope, receive, send)

    app = BodyLimitMiddleware(first_message, BodyLimits(10**6, 5.0), BodyBudget(10**6))
    assert asyncio.run(call(app, *request_of(*[(0, b"x")] * 500))) == 200
    assert seen == [{"type": "http.request", "body": b"x" * 500, "more_body": False}]


def test_proxies_load_little() -> None:
    heavy = ("torch", "diffusers", "transformers", "fastapi", "ray")
    code = f"import sys, serve_app.api.middleware.edge; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
