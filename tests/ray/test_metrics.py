"""What the cluster exports after a few requests."""

import re
import time
from pathlib import Path

import httpx
import pytest
import ray

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy

EXPECTED = {
    "ray_darkroom_images_total",
    "ray_darkroom_phase_seconds_bucket",
    "ray_darkroom_image_seconds_bucket",
    "ray_darkroom_step_seconds_bucket",
    "ray_darkroom_steps_total",
    "ray_darkroom_model_rows_total",
    "ray_darkroom_batch_width",
    "ray_darkroom_rows_in_flight",
    "ray_darkroom_answers_total",
    "ray_darkroom_refusals_total",
    "ray_darkroom_http_seconds_bucket",
    "ray_darkroom_prompts_encoded_total",
    "ray_darkroom_config_refused",
    "ray_darkroom_waiting_images",
    "ray_darkroom_waiting_seconds",
    "ray_darkroom_estimated_wait_seconds",
    "ray_darkroom_deadline_seconds",
    "ray_darkroom_queue_refusals_total",
    "ray_darkroom_resumes_total",
    "ray_darkroom_replicas_given_up_total",
    "ray_darkroom_hand_overs_total",
    "ray_darkroom_convictions_total",
    "ray_darkroom_orphans_total",
}


def exported() -> str:
    """Every node's metrics page."""
    pages = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in ray.nodes()]
    return "\n".join(httpx.get(page, timeout=20).text for page in pages)


def total(page: str, name: str, label: str) -> float:
    """The sum of a metric's series that have this label; other tests' replicas may have left some."""
    found = re.findall(rf"^{name}\{{[^}}]*{label}[^}}]*\}} ([0-9.e+-]+)", page, re.MULTILINE)
    return sum(float(value) for value in found)


def test_images_steps_and_refusals_are_counted(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"counted": tiny_model(tiny_sd)}, settings={"counted": {"deadline_s": 77}}))
    for seed in range(3):
        body = {"prompt": "x", "seed": seed, "num_inference_steps": 30}
        assert client.post("/txt2img/", json=body).status_code == 200
    assert client.post("/txt2img/", json={"prompt": ""}).status_code == 422
    late = client.post("/txt2img/", json={"prompt": "x", "deadline_ms": 1})
    assert late.status_code == 429, late.text
    until = time.monotonic() + 60
    while True:
        page = exported()
        missing = {name for name in EXPECTED if name not in page}
        images = total(page, "ray_darkroom_images_total", 'model="counted"')
        refused = total(page, "ray_darkroom_refusals_total", 'reason="invalid_request"')
        late_images = round(total(page, "ray_darkroom_queue_refusals_total", 'model="counted"[^}]*reason="deadline"'))
        deadline_s = total(page, "ray_darkroom_deadline_seconds", 'model="counted"')
        if not missing and images == 3 and refused >= 1 and late_images == 1 and deadline_s == 77:
            return
        if time.monotonic() > until:
            pytest.fail(f"not exported: {missing}, {images=}, {refused=}, {late_images=}, {deadline_s=}")
        time.sleep(1)
