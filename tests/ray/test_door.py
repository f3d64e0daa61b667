"""What must be refused at the door, while others go on being served."""

import base64
import json
import socket
import threading
import time
from pathlib import Path

import httpx

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.requests.test_image_files import claim_size


def test_bombs_and_trickles_are_refused_while_others_are_served(deploy: Deploy, tiny_sd: Path) -> None:
    ingress = {"max_body_bytes": 1024 * 1024, "body_timeout_s": 2.0}
    client = deploy(application({"t": tiny_model(tiny_sd)}, ingress=ingress))
    served: list[int] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            while not stop.is_set():
                served.append(other.post("/txt2img/", json={"prompt": "x"}).status_code)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        bomb = base64.b64encode(claim_size(50_000, 50_000)).decode()
        answer = client.post("/txt2img/", json={"prompt": "x", "image": bomb})
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "image")
        nested = b'{"prompt":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        deep = client.post("/txt2img/", content=nested, headers={"Content-Type": "application/json"})
        assert deep.status_code in (400, 422)
        assert deep.json()["error"]
        assert send(client.base_url, [b"x" * 1024], stated=2**30) == 413
        assert send(client.base_url, [b"x" * 65536] * 32, stated=None) == 413
        assert send(client.base_url, [b"{"], stated=100, pause=4.0) == 408
        for address in ("http://169.254.169.254/", "file:///etc/passwd", "/etc/passwd"):
            assert client.post("/txt2img/", json={"prompt": "x", "image": address}).status_code == 422
        before = len(served)
        deadline = time.monotonic() + 30
        while len(served) < before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        stop.set()
        asking.join()
    assert set(served) == {200}


def send(url: httpx.URL, chunks: list[bytes], stated: int | None, pause: float = 0.0) -> int:
    """Post by hand; the answer's status. Without a stated length the body is chunked."""
    with socket.create_connection((url.host, url.port or 80), timeout=30) as connection:
        length = f"Content-Length: {stated}" if stated is not None else "Transfer-Encoding: chunked"
        head = f"POST /txt2img/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        connection.sendall(head.encode())
        for chunk in chunks:
            framed = chunk if stated is not None else f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
            try:
                connection.sendall(framed)
            except (BrokenPipeError, ConnectionResetError):
                break
        time.sleep(pause)
        return int(connection.recv(64).split()[1])


def test_two_greedy_tenants_are_held_while_a_modest_one_is_served(
    deploy: Deploy, tiny_sd: Path, tmp_path: Path
) -> None:
    from serve_app.api.keys import new_key

    keys = {name: new_key(name) for name in ("greedy", "greedier", "modest")}
    lines = [{**json.loads(line), "concurrency": 2} for _, line in keys.values()]
    (tmp_path / "keys.json").write_text(json.dumps(lines))
    keys_file = {"file": str(tmp_path / "keys.json")}
    client = deploy(application({"t": tiny_model(tiny_sd)}, ingress={"keys": keys_file}))
    statuses: list[int] = []

    def flood(name: str) -> None:
        body = {"prompt": "x", "num_inference_steps": 100}
        headers = {"Authorization": f"Bearer {keys[name][0]}"}
        statuses.append(httpx.post(f"{client.base_url}/txt2img/", json=body, headers=headers, timeout=60).status_code)

    floods = [threading.Thread(target=flood, args=(name,)) for name in ("greedy", "greedier") for _ in range(12)]
    for one in floods:
        one.start()
    modest = client.post("/txt2img/", json={"prompt": "x"}, headers={"Authorization": f"Bearer {keys['modest'][0]}"})
    for one in floods:
        one.join()
    assert modest.status_code == 200
    assert set(statuses) == {200, 429}
    assert statuses.count(429) >= 16
