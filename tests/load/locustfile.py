"""Load on any deployment: `locust -f tests/load/locustfile.py --host URL [USER CLASSES]`.

User classes: TalkUser (the talk's client), OpenAIStreamUser (partial images over SSE), A1111BatchUser (four at once).
DARKROOM_SHAPE in the environment gives a course of load: steady, burst, ramp or overload; else `-u` and `-r` count.
With keys on, DARKROOM_KEY is sent.
"""

import os
import random
from typing import ClassVar

from locust import HttpUser, LoadTestShape, between, task

SUBJECTS = ("red apple", "pizza", "rocket", "cat face", "house", "sunflower", "grinning face", "red heart")
COLOURS = ("blue", "green", "white", "orange", "cyan")
STAGES: dict[str, list[tuple[int, int]]] = {
    "steady": [(300, 8)],
    "burst": [(60, 4), (80, 40), (140, 4), (160, 40), (240, 4)],
    "ramp": [(60 * minute, 4 * minute) for minute in range(1, 11)],
    "overload": [(60, 8), (180, 200), (300, 8)],
}
"""Shape to its stages: until this second, so many users."""


def prompt() -> str:
    """One that the built-in model knows."""
    return f"{random.choice(SUBJECTS)} on a {random.choice(COLOURS)} background"


class Caller(HttpUser):
    """Sends the key, if there is one; an answer of 429 is the server's right."""

    abstract = True
    wait_time = between(0.1, 1.0)

    def on_start(self) -> None:
        """Every request of this user carries the key."""
        key = os.environ.get("DARKROOM_KEY")
        if key:
            self.client.headers["Authorization"] = f"Bearer {key}"

    def ask(self, path: str, body: dict[str, object], stream: bool = False) -> None:
        """Post and read to the end; all but 200 and 429 count as failures."""
        with self.client.post(path, json=body, stream=stream, catch_response=True) as answer:
            content = answer.content
            if answer.status_code == 429:
                answer.success()
            elif answer.status_code != 200 or not content:
                answer.failure(f"HTTP {answer.status_code}: {content[:200]!r}")


class TalkUser(Caller):
    """The talk's six fields, with unlike steps and guidance."""

    @task
    def draw(self) -> None:
        """One picture."""
        body = {
            "prompt": prompt(),
            "negative_prompt": "blurry",
            "num_inference_steps": random.randint(10, 40),
            "width": 512,
            "height": 512,
            "guidance_scale": random.choice([1.0, 4.0, 7.5]),
        }
        self.ask("/txt2img/", body)


class OpenAIStreamUser(Caller):
    """Watches the picture come."""

    @task
    def draw(self) -> None:
        """Two partial images and the picture."""
        self.ask("/v1/images/generations", {"prompt": prompt(), "stream": True, "partial_images": 2}, stream=True)


class A1111BatchUser(Caller):
    """Asks for four at once."""

    samplers: ClassVar[tuple[str, ...]] = ("Euler a", "DPM++ 2M", "DDIM", "UniPC")

    @task
    def draw(self) -> None:
        """A batch."""
        body = {"prompt": prompt(), "steps": 20, "batch_size": 4, "sampler_name": random.choice(self.samplers)}
        self.ask("/sdapi/v1/txt2img", {**body, "width": 128, "height": 128})


if os.environ.get("DARKROOM_SHAPE"):

    class Shape(LoadTestShape):
        """The stages that DARKROOM_SHAPE names."""

        stages = STAGES[os.environ["DARKROOM_SHAPE"]]

        def tick(self) -> tuple[int, float] | None:
            """Users now, and how fast they come; None at the end."""
            return next(((users, 10.0) for until, users in self.stages if self.get_run_time() < until), None)
