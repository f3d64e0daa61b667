"""What the ingress remembers of each model: asked for once, refreshed in the background, kept at zero replicas."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.deployments.capabilities_cache import CapabilitiesCache
from serve_app.errors import NotReady
from serve_app.requests.capabilities import ModelCapabilities

UNAVAILABLE = DeploymentUnavailableError(DeploymentID("model-m", "darkroom"))


class Handle:
    """A deployment handle: `remote` wakes a replica, `broadcast` asks those that run."""

    def __init__(self, answer: ModelCapabilities | Exception) -> None:
        self.answer = answer
        self.calls: list[str] = []
        self.capabilities = SimpleNamespace(remote=self._remote)

    async def _remote(self) -> ModelCapabilities:
        return await self._tell("remote")

    def broadcast(self, method: str) -> Any:
        async def results(timeout_s: float) -> list[ModelCapabilities]:
            return [await self._tell("broadcast")]

        assert method == "capabilities"
        return SimpleNamespace(results_async=results)

    async def _tell(self, call: str) -> ModelCapabilities:
        self.calls.append(call)
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_many_callers_share_the_first_call_and_later_ones_do_not_wait() -> None:
    async def run() -> None:
        handle, now = Handle(ModelCapabilities(native_size=128)), [0.0]
        cache = CapabilitiesCache({"m": handle}, lambda: now[0])
        assert cache.known == {}
        found = await asyncio.gather(*(cache.get("m") for _ in range(5)))
        assert {one.native_size for one in found} == {128}
        assert handle.calls == ["remote"]
        handle.answer, now[0] = ModelCapabilities(native_size=256), 11.0
        assert (await cache.get("m")).native_size == 128, "the known one, while it is asked for anew"
        for _ in range(3):
            await asyncio.sleep(0)
        assert (await cache.get("m")).native_size == 256
        assert handle.calls == ["remote", "broadcast"], "a refresh wakes no replica"

    asyncio.run(asyncio.wait_for(run(), 30))


def test_what_is_known_stays_while_no_replica_runs() -> None:
    async def run() -> None:
        handle, now = Handle(ModelCapabilities(native_size=128)), [0.0]
        cache = CapabilitiesCache({"m": handle}, lambda: now[0])
        await cache.get("m")
        handle.answer, now[0] = UNAVAILABLE, 11.0
        await cache.refresh("m")
        assert (await cache.get("m")).native_size == 128
        assert handle.calls == ["remote", "broadcast"], "asked again after a while only"

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_model_without_a_working_replica_is_not_ready() -> None:
    async def run() -> None:
        with pytest.raises(NotReady, match="model m"):
            await CapabilitiesCache({"m": Handle(UNAVAILABLE)}).get("m")

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_caller_that_leaves_does_not_end_the_call_of_the_others() -> None:
    async def run() -> None:
        cache = CapabilitiesCache({"m": Handle(ModelCapabilities(native_size=128))})
        first, second = (asyncio.ensure_future(cache.get("m")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).native_size == 128

    asyncio.run(asyncio.wait_for(run(), 30))
