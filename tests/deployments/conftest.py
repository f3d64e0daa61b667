"""Runs async tests of a `ModelQueue` over fake replicas, with quick clocks."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serve_app.deployments import image_run, queues, replica_watch, wake_call
from tests.deployments.fake_replicas import Replicas

Make = Callable[..., Replicas]
AsyncTest = Callable[[Make], Coroutine[Any, Any, None]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[AsyncTest], None]:
    """Run an async test. It gets a function that makes replicas by name."""
    monkeypatch.setattr(image_run, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(queues, "FULL_SECONDS", 0.02)
    monkeypatch.setattr(replica_watch, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(replica_watch, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(replica_watch, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(replica_watch, "ASK_SECONDS", 1.0)
    monkeypatch.setattr(wake_call, "AGAIN_SECONDS", 0.05)

    def run_test(test: AsyncTest) -> None:
        async def main() -> None:
            await asyncio.wait_for(test(lambda *names: Replicas(monkeypatch, *names)), 60)

        asyncio.run(main())

    return run_test
