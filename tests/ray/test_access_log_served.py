"""The access log behind Serve's proxy: one `X-Request-ID`, the one that is logged, and clients that hang up."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy

WAIT_SECONDS = 20
SLOW = {"prompt": "x", "num_inference_steps": 140, "sampler": "heun", "width": 256, "height": 256}


def logged(ray_logs: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The last line of the access log that is wanted, once it is written."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        texts = [file.read_text(errors="replace") for file in ray_logs.glob("worker-*.err")]
        lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith('{"request_id"')]
        found = [line for line in lines if wanted(line)]
        if found:
            return found[-1]
        time.sleep(0.1)
    raise AssertionError("the request is not in the access log")


def test_one_request_id_goes_out_and_it_is_the_logged_one(deploy: Deploy, tiny_sd: Path, ray_logs: Path) -> None:
    client = deploy(application({"t": tiny_model(tiny_sd)}))
    drawn = client.post("/txt2img/", json={"prompt": "x", "seed": 987})
    refused = client.get("/v1/images/none")
    named = client.get("/healthz", headers={"X-Request-ID": "order-8"})
    odd = client.get("/healthz", headers={"X-Request-ID": 'an "odd" id'})
    for answer in (drawn, refused, named, odd):
        (request_id,) = answer.headers.get_list("x-request-id")
        line = logged(ray_logs, lambda line, request_id=request_id: line["request_id"] == request_id)
        assert line["status"] == answer.status_code
    assert named.headers["x-request-id"] == "order-8"
    assert logged(ray_logs, lambda line: line.get("seed") == "987")["request_id"] == drawn.headers["x-request-id"]


def test_a_client_that_hangs_up_is_logged_as_499(deploy: Deploy, tiny_sd: Path, ray_logs: Path) -> None:
    client = deploy(application({"t": tiny_model(tiny_sd)}))
    client.post("/txt2img/", json={"prompt": "warm"})
    with pytest.raises(httpx.ReadTimeout):
        client.post("/txt2img/", json=SLOW, headers={"X-Request-ID": "hung-up"}, timeout=0.5)
    assert logged(ray_logs, lambda line: line["request_id"] == "hung-up")["status"] == 499
