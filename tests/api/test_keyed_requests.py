"""Several ingress replicas and one key: who draws, who follows, and what follows where one dies. All in one process."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serve_app.api import keyed_requests, keyed_work
from serve_app.api.key_claims import KeyClaim
from serve_app.api.keyed_requests import KeyedRequests
from serve_app.api.keys import Caller
from serve_app.api.stream_buffer import NumberedEvent, StreamBuffer
from serve_app.api.usage import Admission, LocalUsage
from serve_app.errors import GenerationFailed, InvalidIdempotencyKey
from serve_app.requests.events import GeneratedImage, Progress, Queued, Timings
from serve_app.requests.idempotency import RequestKey

KEY = RequestKey.of("me", "k")


def image(content: bytes = b"image") -> GeneratedImage:
    return GeneratedImage(content, "png", 8, 8, 0, Timings())


def admission(keyed: KeyedRequests, fingerprint: str = "payload") -> Admission:
    made = Admission(Caller(name="me"), LocalUsage(), str, lambda _: 8, keyed)
    made.fingerprint = fingerprint
    return made


@dataclass
class Cluster:
    """Ingress replicas by name, and what they have drawn. Calls between them take up to `latency_s`."""

    latency_s: float = 0.0
    keyed: dict[str, KeyedRequests] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    drawn: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    def start(self, *names: str) -> None:
        for name in names:
            self.keyed[name] = KeyedRequests(Peers(self, name))

    async def draw(self, name: str, _: Admission) -> AsyncGenerator[NumberedEvent, None]:
        self.drawn.append(name)
        try:
            yield 0, Queued(0, 0.0)
            yield 0, Progress(1, 2, 0.1, b"preview")
            await self.go.wait()
            if self.error is not None:
                raise self.error
            yield 0, image()
        finally:
            self.ended.append(name)

    def read(self, name: str, fingerprint: str = "payload") -> AsyncGenerator[NumberedEvent, None]:
        keyed = self.keyed[name]
        return keyed.read(KEY, admission(keyed, fingerprint), partial(self.draw, name), StreamBuffer(2**20))

    def call(self, name: str, fingerprint: str = "payload") -> "asyncio.Task[list[NumberedEvent]]":
        """A caller at an ingress replica: all its events."""

        async def collect() -> list[NumberedEvent]:
            return [event async for event in self.read(name, fingerprint)]

        return asyncio.create_task(collect())


class Peers:
    """`KeyPeers` of one ingress replica."""

    def __init__(self, cluster: Cluster, ingress: str) -> None:
        self.ingress = ingress
        self._cluster = cluster

    async def ask(self, digest: str) -> Mapping[str, KeyClaim]:
        others = [name for name in self._cluster.keyed if name != self.ingress]
        answers = await asyncio.gather(*(self._ask_one(name, digest, False) for name in others), return_exceptions=True)
        return {name: one for name, one in zip(others, answers, strict=True) if isinstance(one, KeyClaim)}

    async def poll(self, peer: str, digest: str) -> KeyClaim | None:
        return await self._ask_one(peer, digest, True)

    async def fetch(self, peer: str, digest: str) -> Sequence[GeneratedImage]:
        await self._delay()
        return () if peer in self._cluster.dead else self._cluster.keyed[peer].images_of(digest)

    async def find_running(self, model: str, keys: Sequence[str]) -> Mapping[str, str]:
        return {}

    async def _ask_one(self, name: str, digest: str, follows: bool) -> KeyClaim | None:
        await self._delay()
        if name in self._cluster.silent:
            raise TimeoutError
        found = None if name in self._cluster.dead else self._cluster.keyed[name].claim_of(digest, follows)
        await self._delay()
        return found

    async def _delay(self) -> None:
        await asyncio.sleep(random.random() * self._cluster.latency_s)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Cluster], Coroutine[Any, Any, None]]], None]:
    """Run an async test with quick clocks over three ingress replicas: a, b and c."""
    monkeypatch.setattr(keyed_requests, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(keyed_requests, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(keyed_work, "FOLLOWED_SECONDS", 0.2)
    monkeypatch.setattr(keyed_requests, "FOLLOWED_SECONDS", 0.2)

    def run_test(test: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            cluster = Cluster()
            cluster.start("a", "b", "c")
            await asyncio.wait_for(test(cluster), 30)

        asyncio.run(main())

    return run_test


Run = Callable[[Callable[[Cluster], Coroutine[Any, Any, None]]], None]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_a_retry_elsewhere_follows_and_gets_the_image_and_later_ones_the_result(run: Run) -> None:
    async def test(cluster: Cluster) -> None:
        calls = [cluster.call("b")]
        await until(lambda: cluster.drawn)
        calls += [cluster.call(name) for name in "aacb"]
        await asyncio.sleep(0.05)
        cluster.go.set()
        found = [await call for call in calls]
        calls = [cluster.call(name) for name in "abc"]
        later = [await call for call in calls]
        assert all(events[-1] == (0, image()) for events in [*found, *later])
        assert (0, Progress(1, 2, 0.1)) in found[1], "how far it is, without the preview"
        assert found[0][:2] == [(0, Queued(0, 0.0)), (0, Progress(1, 2, 0.1, b"preview"))]
        assert cluster.drawn == ["b"]

    run(test)


def test_another_payload_is_refused_elsewhere_too(run: Run) -> None:
    async def test(cluster: Cluster) -> None:
        first = cluster.call("a")
        await until(lambda: cluster.drawn)
        with pytest.raises(InvalidIdempotencyKey):
            await cluster.call("b", "other")
        cluster.go.set()
        await first
        for name in "abc":
            with pytest.raises(InvalidIdempotencyKey):
                await cluster.call(name, "other")
        assert cluster.drawn == ["a"]

    run(test)


def test_the_work_goes_on_while_a_caller_elsewhere_waits_and_ends_when_all_have_left(run: Run) -> None:
    async def test(cluster: Cluster) -> None:
        first, second = cluster.call("a"), cluster.call("b")
        await asyncio.sleep(0.05)
        (name,) = cluster.drawn
        drawing, following = (first, second) if name == "a" else (second, first)
        drawing.cancel()
        await asyncio.sleep(0.4)
        assert cluster.ended == []
        following.cancel()
        await until(lambda: cluster.ended == [name])
        assert cluster.drawn == [name]

    run(test)


@pytest.mark.parametrize("loss", ["dead", "silent"])
def test_where_an_ingress_replica_is_lost_one_of_its_followers_draws(run: Run, loss: str) -> None:
    async def test(cluster: Cluster) -> None:
        lost = cluster.call("a")
        await until(lambda: cluster.drawn)
        calls = [cluster.call(name) for name in "bbcc"]
        await asyncio.sleep(0.05)
        getattr(cluster, loss).add("a")
        await until(lambda: len(cluster.drawn) == 2)
        cluster.go.set()
        assert [(await call)[-1] for call in calls] == [(0, image())] * 4
        assert len(cluster.drawn) == 2
        lost.cancel()

    run(test)


def test_an_error_reaches_all_who_wait_and_is_not_remembered(run: Run) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.error = GenerationFailed("no luck")
        calls = [cluster.call("a")]
        await until(lambda: cluster.drawn)
        calls += [cluster.call(name) for name in "abc"]
        await asyncio.sleep(0.05)
        cluster.go.set()
        for call in calls:
            with pytest.raises(GenerationFailed):
                await call
        assert cluster.drawn == ["a"]
        cluster.error = None
        assert (await cluster.call("b"))[-1] == (0, image())

    run(test)


def test_who_never_reads_keeps_neither_others_waiting_nor_events_without_end(run: Run) -> None:
    async def test(cluster: Cluster) -> None:
        async def many(_: Admission) -> AsyncGenerator[NumberedEvent, None]:
            for step in range(1000):
                yield 0, Progress(step, 1000, 0.0, b"x" * 100_000)
                await asyncio.sleep(0)
            yield 0, image()

        keyed = cluster.keyed["a"]
        readers = [keyed.read(KEY, admission(keyed), many, StreamBuffer(2**30)) for _ in range(2)]
        await anext(readers[0])
        quick = [event async for event in readers[1]]
        slow = [event async for event in readers[0]]
        assert quick[-1] == slow[-1] == (0, image())
        assert len(quick) > 900
        assert len(slow) < 15, "a megabyte of the latest previews, and the image"

    run(test)


@given(st.integers(0, 2**32), st.lists(st.sampled_from("abcde"), min_size=2, max_size=8))
@hypothesis_settings(max_examples=60)
def test_callers_at_the_same_moment_get_the_same_image_and_it_is_drawn_once(seed: int, names: list[str]) -> None:
    random.seed(seed)

    async def main() -> None:
        cluster = Cluster(latency_s=0.01)
        cluster.start(*"abcde")
        cluster.go.set()

        async def call(name: str) -> NumberedEvent:
            await asyncio.sleep(random.random() * 0.02)
            return (await cluster.call(name))[-1]

        found = await asyncio.wait_for(asyncio.gather(*map(call, names)), 30)
        assert set(found) == {(0, image())}
        assert len(cluster.drawn) == 1, cluster.drawn

    asyncio.run(main())
