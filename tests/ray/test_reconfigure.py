"""Configs that change while requests are served, by what Serve does on `serve deploy`; and configs that are refused."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.ray.test_serving import wait_until

UNKNOWN_KEY = "deployments.ingress.user_config.cors_origin: is not a key; did you mean cors_origins?"


def replicas() -> set[str]:
    return {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if "REPLICA" in actor["name"]}


def ready_body(client: httpx.Client) -> dict[str, Any]:
    return client.get("/readyz").json()


def wait_for(client: httpx.Client, condition: Callable[[dict[str, Any]], bool]) -> None:
    wait_until(lambda: condition(ready_body(client)))


def test_a_config_changes_in_place_and_a_wrong_one_is_refused_whole(
    deploy: Deploy, tiny_sd: Path, ray_logs: Path
) -> None:
    def app(native_size: int = 64, **ingress: Any) -> dict[str, Any]:
        return application({"tiny": tiny_model(tiny_sd, native_size=native_size)}, ingress=ingress)

    client = deploy(app())
    wait_until(lambda: "Darkroom is ready: http://127.0.0.1:" in logs(ray_logs))
    before = replicas()
    large = {"prompt": "x", "width": 128, "height": 128}
    assert client.post("/txt2img/", json=large).headers["x-drawn-size"] == "64x64"
    assert client.get("/v1/presets").json() == []

    deploy(app(presets={"cat": {"prompt": "a cat"}}))
    wait_until(lambda: [one["name"] for one in client.get("/v1/presets").json()] == ["cat"])
    assert client.post("/v1/presets/cat", json={}).status_code == 200

    deploy(app(presets={}, cors_origin=["x"]))
    wait_for(client, lambda body: body["config_errors"] == [UNKNOWN_KEY])
    assert [one["name"] for one in client.get("/v1/presets").json()] == ["cat"], "refused whole"
    deploy(app(default_model="other"))
    wait_for(client, lambda body: "default_model: must be one of tiny, got 'other'" in "".join(body["config_errors"]))
    deploy(app(keys={"file": "/no/such/file"}))
    wait_for(client, lambda body: "user_config.keys.file: /no/such/file" in "".join(body["config_errors"]))
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200

    deploy(app(native_size=100))
    wrong = "deployments.model-tiny.user_config.native_size: must be a multiple of 8, got 100"
    wait_for(client, lambda body: wrong in body["config_errors"])
    deploy(app(native_size=128))
    wait_for(client, lambda body: body["config_errors"] == [])
    wait_until(lambda: "x-drawn-size" not in client.post("/txt2img/", json=large).headers)
    assert replicas() == before, "no replica was replaced"


def logs(folder: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in folder.glob("worker-*.err"))


def test_a_wrong_first_config_stops_the_start_with_its_keys(deploy: Deploy, tiny_sd: Path) -> None:
    wrong = application({"tiny": tiny_model(tiny_sd, dtpe="float16")}, ingress={"cors_origin": []})
    with pytest.raises(RuntimeError) as caught:
        deploy(wrong)
    assert "deployments.model-tiny.user_config.dtpe: is not a key; did you mean dtype?" in str(caught.value)


def test_defaults_that_the_checkpoint_cannot_follow_are_told(deploy: Deploy, tiny_sd: Path) -> None:
    model = tiny_model(tiny_sd, prediction_type="sample")
    client = deploy(application({"tiny": model}, settings={"tiny": {"defaults": {"sampler": "euler_a"}}}))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "invalid_config")
    assert "deployments.ingress.user_config.models.tiny.defaults.sampler: must be one of euler, ddim" in answer.text


def test_a_model_sleeps_until_it_is_asked_for_and_is_known_while_it_sleeps(deploy: Deploy, tiny_sd: Path) -> None:
    scaling = {
        "min_replicas": 0,
        "max_replicas": 1,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0.5,
        "metrics_interval_s": 0.2,
        "look_back_period_s": 0.4,
    }
    options = {"model-tiny": {"autoscaling_config": scaling}}
    client = deploy(application({"tiny": tiny_model(tiny_sd, loras={})}, options=options))
    assert not any("model-tiny" in name for name in replicas())
    assert client.get("/readyz").status_code == 200
    time.sleep(1)
    assert not any("model-tiny" in name for name in replicas()), "asking for readiness does not wake it"
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200
    assert client.get("/sdapi/v1/sd-models").json()[0]["filename"] == tiny_sd.name
    wait_until(lambda: not any("model-tiny" in name for name in replicas()))
    assert client.get("/readyz").status_code == 200
    assert client.get("/sdapi/v1/sd-models").json()[0]["filename"] == tiny_sd.name
    refused = client.post("/txt2img/", json={"prompt": "x", "width": 8})
    assert refused.status_code == 422
    assert not any("model-tiny" in name for name in replicas()), "refused without waking it"
