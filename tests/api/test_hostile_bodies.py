"""Bodies, forms, headers and paths that nobody sends by mistake: each is answered, soon, with an error of ours."""

import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve_app.api.keys import new_key
from tests.api.fakes import fake_app
from tests.api.hostile import BODIES, FORMS, JSON, is_problem
from tests.sample_images import as_file, photo

REFUSED = {
    "deep lists": b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"prompt": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    "open lists": b"[" * 1_000_000,
    "empty lists": b'{"prompt": [' + b"[]," * 1_000_000 + b"[]]}",
    "keys": b"{" + b",".join(b'"k%d":1' % index for index in range(1_000_000)) + b"}",
    "numbers": b'{"prompt": [' + b"1," * 1_000_000 + b"1]}",
    "quotes": b'"' * 1_000_000,
    "digits": b'{"seed": ' + b"9" * 1_000_000 + b"}",
    "not UTF-8": b'{"prompt": "\xe9\xff"}',
    "UTF-16": '{"prompt": "a cat"'.encode("utf-16"),
    "NUL": b"\0",
    "half": b'{"prompt": "a c',
    "a list": b"[]",
    "a text": b'"a cat"',
    "NaN": b"NaN",
    "null": b"null",
}
CONTENT_TYPES = [
    "",
    "text/plain",
    "application/octet-stream",
    "application/xml",
    "application/json; charset=nowhere",
    "application/vnd.api+json",
    "application/json, text/plain",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=" + "x" * 1000,
    "application/x-www-form-urlencoded",
    "\xe9",
    ";;;=",
    'a/b; c="',
]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with fake_app(max_body_bytes=32 * 1024 * 1024)[0] as client:
        yield client


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", BODIES)
def test_bodies_that_explode_are_refused(path: str, name: str, client: TestClient) -> None:
    began = time.monotonic()
    response = client.post(path, content=REFUSED[name], headers=JSON)
    assert 400 <= response.status_code < 500, response.text
    assert is_problem(path, response.json()), response.text
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("kind", CONTENT_TYPES)
@pytest.mark.parametrize("path", [*BODIES, *FORMS])
def test_odd_content_types(path: str, kind: str, client: TestClient) -> None:
    headers: Any = {"content-type": kind.encode("latin-1")}
    response = client.post(path, content=b'{"prompt": "a cat"}', headers=headers)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert is_problem(path, response.json()), response.text


def test_brackets_and_commas_in_a_text_do_not_count() -> None:
    with fake_app(models={"emoji": {"limits": {"max_prompt_characters": 60_000}}})[0] as client:
        prompt = "a, " + "[{" * 4000 + '\\"' * 100 + "}]" * 4000 + "," * 12_000
        body = {"prompt": prompt, "prompt_syntax": "plain"}
        assert client.post("/txt2img/", json=body).status_code == 200


FILE = ("a.png", as_file(photo()), "image/png")
PARTS: dict[str, list[tuple[str, Any]]] = {
    "twice a text": [("image", FILE), ("prompt", (None, "a")), ("prompt", (None, "b"))],
    "twice an image": [("image", FILE), ("image", FILE), ("prompt", (None, "a"))],
    "a file for a text": [("image", FILE), ("prompt", FILE)],
    "a text for a file": [("image", (None, "a")), ("prompt", (None, "a"))],
    "an empty file": [("image", ("a.png", b"", "image/png")), ("prompt", (None, "a"))],
    "no image": [("prompt", (None, "a"))],
    "NUL": [("image", FILE), ("prompt", (None, "a\0b"))],
    "a size of digits": [("image", FILE), ("prompt", (None, "a")), ("size", (None, "9" * 4000))],
    "a number of digits": [("image", FILE), ("prompt", (None, "a")), ("n", (None, "9" * 5000))],
    "NaN": [("image", FILE), ("prompt", (None, "a")), ("guidance_scale", (None, "nan"))],
    "infinity": [("image", FILE), ("prompt", (None, "a")), ("strength", (None, "inf"))],
    "nines": [("image", FILE), ("prompt", (None, "a")), ("strength", (None, "9" * 41))],
    "bytes": [("image", FILE), ("prompt", (None, b"\xe9\xff"))],
    "a thousand parts": [
        ("image", FILE),
        ("prompt", (None, "a")),
        *[(f"x{index}", (None, "")) for index in range(2000)],
    ],
    "an odd name": [("image", ("\u2028\r\n\0", FILE[1], "a/b")), ("prompt", (None, "a"))],
}
RAW_FORMS = {
    "nothing": b"",
    "no boundary": b"a cat",
    "never ends": b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc',
    "no name": b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--",
    "no header": b"--x\r\n\r\nabc\r\n--x--",
    "headers": b"--x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n--x--",
    "a long header": b"--x\r\nA: " + b"b" * 1_000_000,
    "boundaries": b"--x\r\n" * 100_000,
    "bytes": bytes(range(256)),
    "charset": b'--x\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\nnowhere\r\n--x--',
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("path", FORMS)
def test_odd_parts_of_a_form(path: str, name: str, client: TestClient) -> None:
    response = client.post(path, files=PARTS[name])
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert is_problem(path, response.json()), response.text


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("name", RAW_FORMS)
@pytest.mark.parametrize("path", FORMS)
def test_broken_forms(path: str, name: str, kind: str, client: TestClient) -> None:
    response = client.post(path, content=RAW_FORMS[name], headers={"content-type": kind})
    assert 400 <= response.status_code < 500, response.text
    assert is_problem(path, response.json()), response.text


@pytest.mark.parametrize("field", ["&", ";", "a&", "a=b&", "%", "a=%00&"])
@pytest.mark.parametrize("parameters", ["", "; charset=json", ";application/json"])
def test_a_form_of_a_million_fields(field: str, parameters: str, client: TestClient) -> None:
    began = time.monotonic()
    headers = {"content-type": f"Application/x-www-form-urlencoded{parameters}"}
    response = client.post("/v1/images/edits", content=field.encode() * 1_000_000, headers=headers)
    assert 400 <= response.status_code < 500
    assert time.monotonic() - began < 10
    if field.endswith("&"):
        assert "must be a form of at most 1000 fields" in response.text


@pytest.mark.parametrize(
    "value", [b"Basic \xe9", b"Basic 6Q==", b"Bearer \xe9", b"\xe9", b"Basic", b"", b"Bearer " + b"x" * 60_000]
)
def test_odd_keys_are_refused(value: bytes, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(f"[{new_key('me')[1]}]")
    with fake_app(keys={"file": str(file)})[0] as client:
        headers: Any = {"authorization": value}
        response = client.post("/txt2img/", json={"prompt": "a"}, headers=headers)
        assert response.status_code == 401
        assert is_problem("/txt2img/", response.json())


@pytest.mark.parametrize("value", ["\xe9", "\x01", "x" * 10_000, "00-zz-zz-01", "text/event-stream\xe9"])
@pytest.mark.parametrize(
    "header", ["accept", "x-request-id", "traceparent", "tracestate", "host", "content-length", "cookie"]
)
def test_odd_headers(header: str, value: str, client: TestClient) -> None:
    headers: Any = {header: value.encode("latin-1"), **JSON}
    response = client.post("/txt2img/", content=b'{"prompt": "a cat"}', headers=headers)
    assert response.status_code < 500, response.text


@pytest.mark.parametrize("odd", ["%00", "%ff", "%ed%a0%80", "..%2f..%2fetc", "x" * 5000, "%F0%9F%98%80", "{}", "%25s"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/{}",
        "/v1/presets/{}",
        "/v1/generate/{}",
        "/results/{}",
        "/sdapi/v1/interrupt?task={}",
        "/sdapi/v1/progress?skip_current_image={}",
        "/{}",
    ],
)
def test_odd_paths_and_queries(path: str, odd: str, client: TestClient) -> None:
    for method in ("GET", "POST", "DELETE"):
        response = client.request(method, path.replace("{}", odd), json={} if method == "POST" else None)
        assert response.status_code < 500, (method, response.text)


@pytest.mark.parametrize("body", [{"prompt": {"a": 0}}, {"prompt": "a", "alwayson_scripts": {"x": 0}}])
def test_an_error_does_not_write_out_what_was_sent(body: dict[str, Any], client: TestClient) -> None:
    text = json.dumps(body).replace("0", '"' + "\x7f" * 10_000_000 + '"')
    path = "/sdapi/v1/txt2img" if "alwayson_scripts" in body else "/txt2img/"
    tracemalloc.start()
    response = client.post(path, content=text, headers={"content-type": "application/json"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status_code == 422
    assert len(response.content) < 10_000
    assert peak < 80_000_000, "the body, a copy or two, and the text in it"
