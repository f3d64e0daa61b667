"""Large uploads that wait for one slow model: ingress and proxy hold a bounded number of bytes."""

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.sample_images import as_file

MB = 2**20
CALLERS, UPLOAD_BYTES = 40, 20 * MB
BUDGET_BYTES = 128 * MB
PROXY_GROWTH = 3 * BUDGET_BYTES + 128 * MB
"""Serve holds a body up to three times while it hands it on: as received, pickled, and in Ray's store."""
INGRESS_GROWTH = 3 * BUDGET_BYTES + 384 * MB
"""Likewise, and two images at once are decoded."""


def find_processes(name: str) -> list[psutil.Process]:
    """The cluster's processes whose title begins so."""
    mine = psutil.Process().children(recursive=True)
    return [one for one in mine if " ".join(one.cmdline()).startswith(name)]


def resident(processes: list[psutil.Process]) -> int:
    return max(one.memory_info().rss for one in processes)


def test_forty_large_uploads_are_held_within_the_budget(deploy: Deploy, tiny_sd: Path) -> None:
    ingress = {"max_body_bytes": 32 * MB, "max_total_body_bytes": BUDGET_BYTES, "body_timeout_s": 300.0}
    client = deploy(application({"t": tiny_model(tiny_sd, engine={"max_rows": 2})}, ingress=ingress))
    noise = np.random.default_rng(0).integers(0, 255, (2048, 2500, 3), np.uint8)
    text = base64.b64encode(as_file(Image.fromarray(noise))).decode()
    assert len(text) > UPLOAD_BYTES * 0.95
    body = b'{"prompt": "x", "width": 64, "height": 64, "image": "%s"}' % text.encode()
    client.post("/txt2img/", json={"prompt": "warm"})
    watched = {"ray::ProxyActor": 0, "ray::ServeReplica:darkroom:ingress": 0}
    processes = {name: find_processes(name) for name in watched}
    before = {name: resident(found) for name, found in processes.items()}
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for name, found in processes.items():
                watched[name] = max(watched[name], resident(found) - before[name])
            time.sleep(0.02)

    def call(_: int) -> int:
        headers = {"Content-Type": "application/json"}
        return httpx.post(f"{client.base_url}/txt2img/", content=body, headers=headers, timeout=600).status_code

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(CALLERS) as pool:
            statuses = list(pool.map(call, range(CALLERS)))
    finally:
        stop.set()
        watching.join()
    assert statuses == [200] * CALLERS
    assert watched["ray::ProxyActor"] < PROXY_GROWTH
    assert watched["ray::ServeReplica:darkroom:ingress"] < INGRESS_GROWTH
