"""The talk's third client: many users at once, a bounded queue in front, an error when it is full.

python examples/python/queue_client.py [URL] [HOW_MANY]
"""

import json
import queue
import sys
import threading
import urllib.error
import urllib.request

QUEUE_SIZE = 100
WORKERS = 4


def draw(url: str, body: dict[str, object]) -> bytes:
    """One image."""
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        return bytes(answer.read())


def main(url: str = "http://localhost:8000/txt2img/", how_many: str = "120") -> None:
    """Submit bodies faster than they are drawn; print what became of each."""
    waiting: queue.Queue[int | None] = queue.Queue(QUEUE_SIZE)

    def work() -> None:
        while (seed := waiting.get()) is not None:
            try:
                image = draw(url, {"prompt": "red apple", "seed": seed, "num_inference_steps": 4})
                print(f"{seed}: {len(image)} bytes", flush=True)  # noqa: T201
            except urllib.error.HTTPError as error:
                print(f"{seed}: HTTP {error.code}", flush=True)  # noqa: T201

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for seed in range(int(how_many)):
        try:
            waiting.put_nowait(seed)
        except queue.Full:
            print(f"{seed}: HTTP 429, the queue is full", flush=True)  # noqa: T201
    for _ in workers:
        waiting.put(None)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(*sys.argv[1:3])
