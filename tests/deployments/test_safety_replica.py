"""The safety checker's replica: a checker that hangs or fails lets no image out, and is noticed."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray import serve

from serve_app.deployments import safety_replica as module
from serve_app.deployments.safety_replica import SafetyReplica
from serve_app.errors import ContentRefused, NotReady
from serve_app.requests.events import GeneratedImage, Timings
from serve_app.requests.image_files import OutputSpec
from tests.sample_images import as_file, photo

FILE = GeneratedImage(as_file(photo()), "png", 64, 64, 1, Timings())
OUTPUT = OutputSpec(64, 64)
WAIT_SECONDS = 30


class Checker:
    """Flags what it is told to, once it may."""

    def __init__(self) -> None:
        self.verdict: bool | Exception = False
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def flags(self, images: Sequence[object]) -> list[bool]:
        self.entered.set()
        assert self.go.wait(WAIT_SECONDS)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return [self.verdict] * len(images)


def test_verdicts_failures_and_a_hanging_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one event loop: Serve keeps one queue of batches for the class."""
    checker = Checker()
    # Serve's batching asks its replica how many calls may run at once.
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=32))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(module, "load_checker", lambda _: checker)
    monkeypatch.setattr(module, "MAX_BATCH_SECONDS", 0.0)

    async def run() -> None:
        replica = SafetyReplica()
        with pytest.raises(NotReady, match="no safety checker"):
            await replica.check_health()
        await replica.reconfigure({})
        assert await replica.review(FILE, OUTPUT, "refuse") == replace(FILE, flagged=False)
        await check_verdicts(replica, checker)
        checker.verdict = RuntimeError("out of memory")
        with pytest.raises(RuntimeError):
            await replica.review(FILE, OUTPUT, "flag")
        await replica.check_health()
        await check_hanging(replica, checker)

    asyncio.run(asyncio.wait_for(run(), 2 * WAIT_SECONDS))


async def check_verdicts(replica: SafetyReplica, checker: Checker) -> None:
    checker.verdict = True
    assert (await replica.review(FILE, OUTPUT, "flag")).content == FILE.content
    assert (await replica.review(FILE, OUTPUT, "blur")).content != FILE.content
    with pytest.raises(ContentRefused):
        await replica.review(FILE, OUTPUT, "refuse")


async def check_hanging(replica: SafetyReplica, checker: Checker) -> None:
    checker.verdict = False
    checker.entered.clear()
    checker.go.clear()
    review = asyncio.ensure_future(replica.review(FILE, OUTPUT, "flag"))
    assert await asyncio.to_thread(checker.entered.wait, WAIT_SECONDS)
    with pytest.raises(NotReady, match="has not answered"):
        await replica.check_health()
    checker.go.set()
    assert (await review).flagged is False
    await replica.check_health()
