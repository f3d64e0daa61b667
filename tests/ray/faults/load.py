"""Callers: each image is a plain request on a connection of its own."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

import httpx

PROMPT = "red apple on a blue background"
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Answer:
    """One response. `finished` is when its last byte came; status 0 is a connection that ended without a response."""

    seed: int
    status: int
    content: bytes
    headers: Mapping[str, str]
    began: float
    finished: float

    @property
    def seconds(self) -> float:
        """From the request to the last byte."""
        return self.finished - self.began


class Callers:
    """Send requests at the same time, as many as there are.

    Args:
        url: the server's.

    `pool` has a thread for each caller.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.pool = ThreadPoolExecutor(600)

    def post(self, seed: int, prompt: str = PROMPT, headers: Mapping[str, str] = {}, **body: object) -> Answer:
        """One image."""
        began = monotonic()
        json = {"prompt": prompt, "seed": seed, **body}
        try:
            got = httpx.post(f"{self._url}/txt2img/", json=json, headers=dict(headers), timeout=TIMEOUT_SECONDS)
        except httpx.TransportError as error:
            return Answer(seed, 0, str(error).encode(), {}, began, monotonic())
        return Answer(seed, got.status_code, got.content, got.headers, began, monotonic())

    def send(self, seeds: Iterable[int], prompt: str = PROMPT) -> "list[Future[Answer]]":
        """An image for each seed, all at once."""
        return [self.pool.submit(self.post, seed, prompt) for seed in seeds]

    def close(self) -> None:
        """Wait for those that are under way."""
        self.pool.shutdown()
