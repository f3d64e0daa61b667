"""`/readyz` is about now: a model whose replicas are all dead is named, one that is full or asleep is not."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ApplicationStatus

from serve_app.config import IngressConfig
from serve_app.config.names import INGRESS
from serve_app.deployments import readiness, replica_fleet, replica_watch, serve_state
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.readiness import Readiness
from serve_app.requests.capabilities import ModelCapabilities
from tests.deployments.fake_replicas import Replicas, until


class Fleet:
    """The replicas of one model. `refused` is what each of them refuses."""

    def __init__(self, is_up: bool = True, refused: tuple[str, ...] = ()) -> None:
        self.is_up = is_up
        self.refused = refused

    async def ask_each(self, method: str) -> dict[str, str]:
        assert method == "refusal"
        return dict(enumerate(self.refused))  # type: ignore[arg-type]


class Capabilities:
    """What models can do. Those in `answering` tell when they are asked."""

    def __init__(self, *answering: str) -> None:
        self.answering = set(answering)
        self.known: dict[str, ModelCapabilities] = {}

    async def refresh(self, model: str) -> None:
        if model in self.answering:
            self.known[model] = ModelCapabilities(native_size=64)


def make(monkeypatch: pytest.MonkeyPatch, fleets: dict[str, Fleet], *asleep: str) -> Readiness:
    monkeypatch.setattr(readiness, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(serve_state, "is_scaled_to_zero", lambda model: model in asleep)
    config: LiveConfig[IngressConfig] = LiveConfig(INGRESS, IngressConfig)
    config.accept(IngressConfig())
    capabilities: Any = Capabilities(*(name for name, fleet in fleets.items() if fleet.is_up))
    models: Any = fleets
    return Readiness(config, capabilities, models)


def test_a_model_is_missing_while_none_of_its_replicas_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    fleets = {"a": Fleet(), "b": Fleet()}
    ready = make(monkeypatch, fleets)
    assert asyncio.run(ready.find_missing()) == []
    fleets["b"].is_up = False
    assert asyncio.run(ready.find_missing()) == ["b"], "it was ready before"
    fleets["b"].is_up = True
    assert asyncio.run(ready.find_missing()) == []


def test_a_model_that_warms_up_is_missing_and_one_that_sleeps_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = make(monkeypatch, {"a": Fleet(), "warms": Fleet(is_up=False), "sleeps": Fleet(is_up=False)}, "sleeps")
    assert asyncio.run(ready.find_missing()) == ["warms"]


def test_what_replicas_refuse_is_asked_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = make(monkeypatch, {"a": Fleet(refused=("", "a.b: wrong")), "b": Fleet(refused=("a.b: wrong\nc.d: bad",))})
    assert asyncio.run(ready.find_config_errors()) == ["a.b: wrong", "c.d: bad"]


def test_a_replica_is_up_while_it_answers_room_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_watch, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(replica_fleet, "LIVE_SECONDS", 0.5)

    async def test() -> None:
        replicas = Replicas(monkeypatch, "a")
        await until(lambda: replicas.queue.fleet.is_up)
        replicas.submit(*"123456789")
        await until(lambda: replicas.all["a"].running)
        assert replicas.queue.fleet.is_up, "it is full"
        replicas.all["a"].is_silent = True
        await until(lambda: not replicas.queue.fleet.is_up)
        replicas.tell("a", "b")
        await until(lambda: replicas.queue.fleet.is_up)

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize(
    ("status", "states", "sleeps"),
    [
        ("HEALTHY", {}, True),
        ("UPSCALING", {"STARTING": 1}, True),
        ("DOWNSCALING", {"STOPPING": 1}, True),
        ("UPSCALING", {"RUNNING": 1, "STARTING": 1}, False),
        ("HEALTHY", {"RUNNING": 1}, False),
        ("UNHEALTHY", {"STARTING": 1}, False),
        ("UPDATING", {"STARTING": 1}, False),
    ],
)
def test_a_model_sleeps_where_serve_wants_no_replica_or_wakes_it(
    monkeypatch: pytest.MonkeyPatch, status: str, states: dict[str, int], sleeps: bool
) -> None:
    deployment = SimpleNamespace(status=status, replica_states=states)
    found = SimpleNamespace(status=ApplicationStatus.RUNNING, deployments={"model-m": deployment})
    monkeypatch.setattr(serve_state, "find_status", lambda: found)
    assert serve_state.is_scaled_to_zero("m") is sleeps
    assert not serve_state.is_scaled_to_zero("other")
