"""`Idempotency-Key` over HTTP, on every route that draws."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api.app import create_app
from serve_app.api.keys import new_key
from serve_app.errors import Cancelled, GenerationFailed, Overloaded
from tests.api.fakes import CONFIG, FakeService, fake_app
from tests.api.test_generate import events_of
from tests.sample_images import as_file, photo

PHOTO = as_file(photo())
BASE64 = base64.b64encode(PHOTO).decode()
ROUTES: dict[str, dict[str, Any]] = {
    "/txt2img/": {"json": {"prompt": "x"}},
    "/v1/generate": {"json": {"prompt": "x", "num_images": 2}},
    "/v1/presets/avatar": {"json": {"variables": {"subject": "a fox"}}},
    "/v1/images/generations": {"json": {"prompt": "x", "n": 2}},
    "/v1/images/edits": {"data": {"prompt": "x"}, "files": {"image": PHOTO}},
    "/v1/images/variations": {"files": {"image": PHOTO}},
    "/sdapi/v1/txt2img": {"json": {"prompt": "x", "batch_size": 2, "subseed_strength": 0.1}},
    "/sdapi/v1/img2img": {"json": {"prompt": "x", "init_images": [BASE64]}},
}
KEY = {"Idempotency-Key": "k"}
STREAM = {**KEY, "Accept": "text/event-stream"}

Client = httpx.AsyncClient


def run(test: Callable[[Client, FakeService], Coroutine[Any, Any, None]], **config: Any) -> None:
    """Run an async test over the whole HTTP application. A call that is cancelled is a caller who hangs up."""
    service = FakeService(CONFIG.model_validate({**CONFIG.model_dump(exclude_unset=True), **config}))
    transport = httpx.ASGITransport(create_app(service, service.config), raise_app_exceptions=False)

    async def main() -> None:
        async with Client(transport=transport, base_url="http://darkroom") as client:
            await asyncio.wait_for(test(client, service), 60)

    asyncio.run(main())


async def drawn(service: FakeService, count: int) -> None:
    """Until so many images are being drawn."""
    while len(service.requests) < count:
        await asyncio.sleep(0.005)


def images_of(response: httpx.Response) -> list[str]:
    """The images of a response, in whatever form."""
    if response.headers["content-type"].startswith("image/"):
        return [base64.b64encode(response.content).decode()]
    body = response.json()
    found = body.get("data") or body["images"]
    return [one if isinstance(one, str) else one["b64_json"] for one in found]


@pytest.mark.parametrize("path", ROUTES)
def test_a_retry_gets_the_same_images_and_nothing_is_drawn_again(path: str) -> None:
    async def test(client: Client, service: FakeService) -> None:
        service.delay_s = 0.2
        first = asyncio.ensure_future(client.post(path, headers=KEY, **ROUTES[path]))
        await drawn(service, 1)
        second = await client.post(path, headers=KEY, **ROUTES[path])
        assert (second.status_code, (await first).status_code) == (200, 200), second.text
        third = await client.post(path, headers=KEY, **ROUTES[path])
        assert images_of(await first) == images_of(second) == images_of(third)
        assert len(service.requests) == len(images_of(second))
        assert "Idempotency-Key" not in json.dumps(service.contexts[0].__dict__, default=str)
        assert service.contexts[0].idempotency_key

    run(test)


@pytest.mark.parametrize("path", ROUTES)
def test_another_payload_under_the_key_is_a_422_that_names_it(path: str) -> None:
    async def test(client: Client, service: FakeService) -> None:
        assert (await client.post(path, headers=KEY, **ROUTES[path])).status_code == 200
        seeded = {"seed": "7"} if "files" in ROUTES[path] else {"seed": 7}
        field = "data" if "files" in ROUTES[path] else "json"
        other = {**ROUTES[path], field: {**ROUTES[path].get(field, {}), **seeded}}
        refused = await client.post(path, headers=KEY, **other)
        assert (refused.status_code, refused.headers["x-error"]) == (422, "invalid_idempotency_key")
        assert "Idempotency-Key" in refused.text
        assert (await client.post(path, headers={"Idempotency-Key": "other"}, **other)).status_code == 200

    run(test)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "h\u00e9"], ids=["empty", "space", "long", "not-ascii"])
def test_a_key_is_255_visible_ascii_characters_at_most(path: str, key: str) -> None:
    async def test(client: Client, service: FakeService) -> None:
        headers = [("Idempotency-Key", key.encode("latin-1"))]
        refused = await client.post(path, headers=headers, **ROUTES[path])  # type: ignore[arg-type]
        assert refused.status_code == 422
        assert "Idempotency-Key" in refused.text
        assert "1 to 255 visible ASCII characters" in refused.text
        assert service.requests == []

    run(test)


def test_a_request_without_seed_draws_the_same_after_everything_was_lost() -> None:
    def seeds(path: str, key: str) -> list[int]:
        client, service = fake_app()
        assert client.post(path, headers={"Idempotency-Key": key}, **ROUTES[path]).status_code == 200
        found = [one.variation.seed if one.variation else one.seed for one in service.requests]
        return [service.requests[0].seed, *found]

    for path in ROUTES:
        assert seeds(path, "a") == seeds(path, "a")
        assert seeds(path, "a") != seeds(path, "b")


def test_a_stream_that_joins_gets_the_events_from_now_on_and_the_image() -> None:
    async def test(client: Client, service: FakeService) -> None:
        service.delay_s = 0.2
        body = {"prompt": "x", "num_images": 2}
        calls = [asyncio.ensure_future(client.post("/v1/generate", json=body, headers=STREAM))]
        await drawn(service, 2)
        calls.append(asyncio.ensure_future(client.post("/v1/generate", json=body, headers=STREAM)))
        plain = (await client.post("/v1/generate", json=body, headers=KEY)).json()
        streams = [events_of((await call).text) for call in calls]
        streams.append(events_of((await client.post("/v1/generate", json=body, headers=STREAM)).text))
        for stream in streams:
            images = {event["index"]: event["b64_json"] for name, event in stream if name == "image"}
            assert [images[0], images[1]] == [one["b64_json"] for one in plain["images"]]
            assert stream[-1][0] == "done"
            assert {event["id"] for _, event in stream} == {plain["id"]}, "by which any of them stops it"
        for stream in streams[:2]:
            assert {"queued", "progress"} <= {name for name, _ in stream}
        assert len(service.requests) == 2

    run(test)


def test_the_work_ends_when_all_have_hung_up() -> None:
    async def test(client: Client, service: FakeService) -> None:
        service.delay_s = 600
        calls = [asyncio.ensure_future(client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)) for _ in range(3)]
        await drawn(service, 1)
        await asyncio.sleep(0.05)
        for call in calls[:2]:
            call.cancel()
        await asyncio.sleep(0.05)
        assert service.closed == 0
        calls[2].cancel()
        while service.closed == 0:
            await asyncio.sleep(0.005)
        service.delay_s = 0
        assert (await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)).status_code == 200
        assert len(service.requests) == 2

    run(test)


def test_who_began_may_leave_and_the_others_get_the_image() -> None:
    async def test(client: Client, service: FakeService) -> None:
        service.delay_s = 0.3
        first = asyncio.ensure_future(client.post("/txt2img/", json={"prompt": "x"}, headers=KEY))
        await drawn(service, 1)
        second = asyncio.ensure_future(client.post("/txt2img/", json={"prompt": "x"}, headers=KEY))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).status_code == 200
        assert len(service.requests) == 1

    run(test)


@pytest.mark.parametrize(
    "error", [GenerationFailed("no luck"), Overloaded(7), Cancelled("stopped"), RuntimeError("bug")]
)
def test_all_who_wait_get_the_error_and_a_retry_tries_again(error: Exception) -> None:
    async def test(client: Client, service: FakeService) -> None:
        service.delay_s, service.error = 0.1, error
        first = asyncio.ensure_future(client.post("/txt2img/", json={"prompt": "x"}, headers=KEY))
        await drawn(service, 1)
        second = await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)
        status = getattr(error, "status", 500)
        assert ((await first).status_code, second.status_code) == (status, status)
        assert (await first).content == second.content
        assert len(service.requests) == 1
        service.error = None
        assert (await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)).status_code == 200

    run(test)


def test_a_retry_is_not_refused_where_the_queue_is_full() -> None:
    async def test(client: Client, service: FakeService) -> None:
        async def refuse(*_: object) -> None:
            raise Overloaded(7)

        assert (await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)).status_code == 200
        service.check_room = refuse  # type: ignore[method-assign]
        assert (await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)).status_code == 200
        refused = await client.post("/txt2img/", json={"prompt": "x"}, headers={"Idempotency-Key": "new"})
        assert refused.status_code == 429

    run(test)


def keyed(folder: Path, *callers: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A config with keys of these limits, and the headers of each."""
    made = [new_key(caller["name"]) for caller in callers]
    entries = [{**json.loads(entry), **caller} for (_, entry), caller in zip(made, callers, strict=True)]
    (folder / "keys.json").write_text(json.dumps(entries))
    headers = [{**KEY, "Authorization": f"Bearer {key}"} for key, _ in made]
    return {"keys": {"file": str(folder / "keys.json")}}, headers


def test_keys_of_two_owners_never_meet(tmp_path: Path) -> None:
    config, (alice, bob) = keyed(tmp_path, {"name": "alice"}, {"name": "bob"})

    async def test(client: Client, service: FakeService) -> None:
        answers = [await client.post("/txt2img/", json={"prompt": "x"}, headers=one) for one in (alice, bob, alice)]
        assert [answer.headers["x-seed"] for answer in answers] == [str(one.seed) for one in service.requests[:2]] + [
            answers[0].headers["x-seed"]
        ]
        assert len(service.requests) == 2
        assert (await client.post("/txt2img/", json={"prompt": "other"}, headers=bob)).status_code == 422

    run(test, **config)


def test_who_joins_counts_as_a_request_and_the_images_once(tmp_path: Path) -> None:
    config, (narrow, slow) = keyed(
        tmp_path, {"name": "narrow", "concurrency": 1}, {"name": "slow", "rate": 0.01, "burst": 2}
    )

    async def test(client: Client, service: FakeService) -> None:
        async def post(headers: dict[str, str], **more: str) -> int:
            return (await client.post("/txt2img/", json={"prompt": "x"}, headers={**headers, **more})).status_code

        service.delay_s = 0.5
        first = asyncio.ensure_future(post(narrow))
        await drawn(service, 1)
        joined = asyncio.ensure_future(post(narrow))
        await asyncio.sleep(0.05)
        assert await post(narrow, **{"Idempotency-Key": "other"}) == 429
        first.cancel()
        await asyncio.sleep(0.05)
        assert await post(narrow, **{"Idempotency-Key": "other"}) == 429, "it is still drawn, for who joined"
        assert await joined == 200
        assert await post(narrow, **{"Idempotency-Key": "other"}) == 200
        service.delay_s = 0
        assert [await post(slow) for _ in range(3)] == [200, 200, 429]

    run(test, **config)


def test_a_result_is_kept_for_as_long_as_the_config_says() -> None:
    async def test(client: Client, service: FakeService) -> None:
        assert (await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)).status_code == 200
        await asyncio.sleep(0.3)
        assert (await client.post("/txt2img/", json={"prompt": "x"}, headers=KEY)).status_code == 200
        assert len(service.requests) == 2

    run(test, idempotency={"max_age_s": 0.2})


def test_openapi_has_the_header_on_every_route_that_draws() -> None:
    client, _ = fake_app()
    paths = client.get("/openapi.json").json()["paths"]
    named = {path for path, one in paths.items() if "Idempotency-Key" in json.dumps(one)}
    assert named == {path.replace("avatar", "{name}") for path in ROUTES}
