"""The whole graph on a real cluster, over real HTTP."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
from PIL import Image
from ray import serve

from serve_app.engine.engine_counters import EngineCounters
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy

SLOW = {"prompt": "a cat", "num_inference_steps": 140, "seed": 1, "sampler": "heun"}


def counters(model: str) -> EngineCounters:
    return serve.get_deployment_handle(f"model-{model}", "darkroom").counters.remote().result()


def rows_in_flight(model: str) -> int:
    return counters(model).rows_in_flight


def kill_replicas(deployment: str) -> None:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(f"SERVE_REPLICA::darkroom#{deployment}#"):
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


def wait_until(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_the_talks_request_is_answered_with_a_png_of_the_asked_size(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"tiny": tiny_model(tiny_sd)}, ingress={"max_body_bytes": 64 * 1024}))
    body = {
        "prompt": "A potrait of a man , comic styled, detailed hair, smiling face",
        "negative_prompt": "nsfw, bad eyes, bad teeth",
        "num_inference_steps": 10,
        "width": 512,
        "height": 512,
        "guidance_scale": 7.5,
    }
    for path in ("/txt2img/", "/txt2img"):
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-drawn-size"] == "64x64"
        assert answer.headers["x-model"] == "tiny"
        assert {part.split(";")[0] for part in answer.headers["server-timing"].split(", ")} == {
            "queue",
            "encode",
            "denoise",
            "decode",
        }
        image = Image.open(io.BytesIO(answer.content))
        assert image.size == (512, 512)
        assert f"Seed: {answer.headers['x-seed']}" in image.text["parameters"]  # type: ignore[attr-defined]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "config_errors": []}
    assert "/static-offline-docs/" in client.get("/docs").text
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    for bad, field in (({**body, "width": 0}, "width"), ({**body, "steps": 5}, "steps")):
        refused = client.post("/txt2img/", json=bad)
        assert refused.status_code == 422
        assert refused.json()["error"]["field"] == field
    assert client.post("/txt2img/", content=b"{" + b" " * 100_000).status_code == 413


def test_fractional_gpus_share_one_gpu_and_two_models_are_served_side_by_side(
    deploy: Deploy, tiny_sd: Path, tiny_sd_v: Path
) -> None:
    share = {"num_gpus": 0.5, "num_cpus": 0.5}
    client = deploy(
        application(
            {"a": tiny_model(tiny_sd), "b": tiny_model(tiny_sd_v)},
            args={"models": {"a": share, "b": share}},
            options={"model-a": {"num_replicas": 2}, "model-b": {"num_replicas": 2}},
        )
    )
    assert ray.available_resources().get("GPU", 0) == 0
    pictures = {
        model: client.post("/txt2img/", json={"prompt": "x", "seed": 1, "model": model}).content for model in "ab"
    }
    assert pictures["a"] != pictures["b"]


def test_a_client_that_hangs_up_frees_its_rows(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"tiny": tiny_model(tiny_sd, engine={"max_rows": 2})}))
    client.post("/txt2img/", json={"prompt": "warm"})

    def impatient(seed: int) -> bool:
        try:
            httpx.post(f"{client.base_url}/txt2img/", json={**SLOW, "seed": seed}, timeout=1.0)
        except httpx.ReadTimeout:
            return True
        return False

    with ThreadPoolExecutor(12) as pool:
        assert any(pool.map(impatient, range(12)))
    wait_until(lambda: rows_in_flight("tiny") == 0)
    assert client.post("/txt2img/", json={"prompt": "still here"}).status_code == 200


def test_a_full_queue_answers_429_with_retry_after(deploy: Deploy, tiny_sd: Path) -> None:
    model = tiny_model(tiny_sd, engine={"max_rows": 2})
    client = deploy(application({"tiny": model}, settings={"tiny": {"max_waiting": 1}}))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda seed: client.post("/txt2img/", json={**SLOW, "seed": seed}), range(12)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"
    assert "of at most 1 images wait" in refused.json()["error"]["message"]


def test_an_image_survives_the_death_of_its_replica(deploy: Deploy, tiny_sd: Path) -> None:
    engine = {"max_rows": 8, "resume_interval_s": 0.02}
    client = deploy(application({"tiny": tiny_model(tiny_sd, engine=engine)}))
    body = {**SLOW, "width": 128, "height": 128}
    warm = counters("tiny").steps
    undisturbed = client.post("/txt2img/", json=body)
    before = counters("tiny").steps
    found: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: found.append(client.post("/txt2img/", json=body)))
    caller.start()
    wait_until(lambda: counters("tiny").steps > before + 40)
    kill_replicas("model-tiny")
    caller.join()
    assert counters("tiny").steps - warm <= before - warm - 20, "the new replica went on from where the old one was"
    assert found[0].status_code == 200, found[0].text
    mine, theirs = (np.asarray(Image.open(io.BytesIO(answer.content))) for answer in (found[0], undisturbed))
    assert np.array_equal(mine, theirs)


def test_images_in_flight_are_finished_when_the_app_is_deleted(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"tiny": tiny_model(tiny_sd)}))
    client.post("/txt2img/", json={"prompt": "warm"})
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.post, "/txt2img/", json={**SLOW, "seed": seed}) for seed in range(4)]
        wait_until(lambda: rows_in_flight("tiny") == 8)
        serve.delete("darkroom")
        assert [call.result().status_code for call in calls] == [200] * 4


def test_a_model_that_cannot_be_loaded_stops_the_start_with_its_path(deploy: Deploy) -> None:
    with pytest.raises(RuntimeError, match="source: /no/such/model does not exist: give a diffusers directory"):
        deploy(application({"tiny": tiny_model("/no/such/model")}))


def test_what_only_the_replica_can_refuse_is_a_422_all_the_same(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"tiny": tiny_model(tiny_sd)}))
    answer = client.post("/txt2img/", json={"prompt": "x", "sampler": "lcm", "num_inference_steps": 100})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "num_inference_steps"
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200
