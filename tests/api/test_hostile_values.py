"""Whatever a caller puts into a field, the answer is a 4xx in the shape of the API that was called, or an image."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.fakes import fake_app
from tests.api.hostile import BODIES, JSON, is_problem

VALUES = {
    "4000 digits": "9" * 4000,
    "5000 digits": "9" * 5000,
    "41 digits": "9" * 41,
    "minus 41 digits": "-" + "9" * 41,
    "1e400": "1e400",
    "1e308": "1e308",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "-1": "-1",
    "0": "0",
    "0.5": "0.5",
    "2**31": str(2**31),
    "2**63": str(2**63),
    "true": "true",
    "null": "null",
    "NUL": json.dumps("a\0b"),
    "lone surrogate": '"a\\ud800b"',
    "nothing": '""',
    "text of digits": json.dumps("9" * 4000),
    "weight": json.dumps("(a:" + "9" * 41 + ")"),
    "brackets": json.dumps("(" * 1000 + "a:" * 500),
    "LoRA": json.dumps("<lora:a:" + "9" * 400 + ">"),
    "LoRA of NaN": json.dumps("<lora:a:nan>"),
    "long text": json.dumps("x" * 20_000),
    "object": "{}",
    "list": "[]",
    "list of lists": "[[[[[]]]]]",
    "list of a number": "[1]",
    "surrogate as key": '{"\\ud800": 1}',
    "NUL as key": '{"\\u0000": 1}',
}


def fields(document: dict[str, Any], path: str) -> list[str]:
    """The fields of the body of a POST, and one that it does not have."""
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
    return [*named.get("properties", {}), "sd_model_checkpoint", "nowhere"]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with fake_app(max_body_bytes=32 * 1024 * 1024)[0] as client:
        yield client


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("path", BODIES)
def test_no_value_is_a_server_error(path: str, name: str, client: TestClient) -> None:
    known = client.get("/openapi.json").json()
    template = path.replace("avatar", "{name}")
    for field in fields(known, template):
        body = json.dumps({**BODIES[path], field: "HERE"}).replace('"HERE"', VALUES[name])
        response = client.post(path, content=body, headers=JSON)
        assert response.status_code < 500, (field, response.text)
        if response.status_code >= 400:
            assert is_problem(path, response.json()), (field, response.text)
