"""Replicas of one model, as a `ModelQueue` sees them: their actors, their streams, and Serve's set of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from serve_app.deployments import replica_fleet, replica_watch
from serve_app.deployments.queues import ModelQueue
from serve_app.deployments.replica_sets import ReplicaAddress, ReplicaSets
from serve_app.errors import Draining
from serve_app.requests.events import GeneratedImage, Queued, ReplicaEvent, ReplicaLoad, ResumePoint, Timings
from serve_app.requests.image_files import OutputSpec
from serve_app.requests.params import SamplingParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.step_curve import StepCurve

CURVE = StepCurve(size=(8, 8), seconds={1: 0.1, 2: 0.12, 4: 0.2}, max_rows=4)
"""Two guided images fill a batch, so a replica uses four."""
IMAGE = GeneratedImage(content=b"", format="png", width=1, height=1, seed=1, timings=Timings())


def point(step: int) -> ResumePoint:
    """A resume point after `step` model calls."""
    return ResumePoint(pass_index=0, step_index=step, draws=0, shape=(1,), state=b"")


def ask(prompt: str = "x", steps: int = 10) -> GenerationRequest:
    """A guided request of the curve's size."""
    sampling = SamplingParams(num_inference_steps=steps, guidance_scale=5.0, sampler="euler")
    return GenerationRequest(
        model="m", prompt=prompt, sampling=sampling, width=64, height=64, seed=1, output=OutputSpec(64, 64)
    )


class Stream:
    """One call of `generate`. The test puts events or errors; the stream ends with None."""

    def __init__(
        self, replica: "Replica", request: GenerationRequest, context: CallerContext, saved: Any, **how: Any
    ) -> None:
        self.replica = replica
        self.key = context.idempotency_key
        self.prompt = request.prompt
        self.saved = saved
        self.suspect = how["suspect"]
        self.resumed = how["resumed"]
        self.alone = how["alone"]
        self.cancelled = False
        self._events: asyncio.Queue[ReplicaEvent | Exception | None] = asyncio.Queue()
        self._events.put_nowait(replica.refusal or Queued(0, 0.0))

    def put(self, *events: ReplicaEvent | Exception | None) -> None:
        for event in events:
            self._events.put_nowait(event)

    async def __anext__(self) -> ReplicaEvent:
        event = await self._events.get()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, Exception):
            raise event
        return event

    def cancel(self) -> None:
        self.cancelled = True


class Replica:
    """One replica's actor and its streams."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.streams: list[Stream] = []
        self.load = ReplicaLoad(curve=CURVE)
        self.queued_s = 0.0
        self.refusal: Exception | None = None
        self.is_dead = False
        self.is_silent = False
        self.kills = 0
        self.calls: list[tuple[Any, ...]] = []

    @property
    def running(self) -> list[Stream]:
        """The streams that were not cancelled."""
        return [stream for stream in self.streams if not stream.cancelled]

    async def heartbeat(self, _ingress: str, queued_s: float) -> ReplicaLoad:
        if self.is_dead:
            raise ActorDiedError
        if self.is_silent:
            await asyncio.sleep(600)
        self.queued_s = queued_s
        return self.load

    async def hand_over(self) -> None:
        for stream in self.streams:
            stream.put(point(5), RayTaskError("generate", "a traceback", Draining("about to stop")))

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, *args))
        if method == "find_images":
            return [key for key in args[0] if key in {stream.key for stream in self.running}]
        return None

    def kill(self) -> None:
        self.kills += 1
        self.die()

    def die(self) -> None:
        """The process ends, and every stream with it."""
        self.is_dead = True
        for stream in self.streams:
            stream.put(ActorDiedError())


class Replicas:
    """A model's deployment, with its handle, its set and its queue. Make it on the event loop."""

    def __init__(self, monkeypatch: Any, *names: str, clock: Callable[[], float] | None = None) -> None:
        self.all = {name: Replica(name) for name in names}
        self.sets = ReplicaSets()
        self.woken: list[asyncio.Future[None]] = []
        monkeypatch.setattr(replica_fleet, "REPLICA_SETS", self.sets)
        monkeypatch.setattr(replica_watch, "ReplicaActor", self)
        self.generate, self.capabilities = Call(self._generate), Call(self._wake)
        self.queue = ModelQueue(self, "ingress-1", **({"clock": clock} if clock else {}))
        self.nodes: dict[str, str] = {}
        self.tell(*names)
        self.queue.fleet.follow("model-m")

    def tell(self, *names: str) -> None:
        """Serve's router has these replicas."""
        for name in names:
            self.all.setdefault(name, Replica(name))
        self.sets.tell("model-m", [ReplicaAddress(name, name, self.nodes.get(name, "")) for name in names])

    def options(self, **_: Any) -> "Replicas":
        return self

    async def find(self, actor_name: str) -> Replica:
        return self.all[actor_name]

    def _generate(self, request: GenerationRequest, context: CallerContext, saved: Any, **how: Any) -> Stream:
        replica = self.all[how["target"]]
        stream = Stream(replica, request, context, saved, **how)
        replica.streams.append(stream)
        return stream

    def _wake(self) -> "asyncio.Future[None]":
        self.woken.append(asyncio.get_running_loop().create_future())
        return self.woken[-1]

    def submit(
        self, *prompts: str, owner: str = "me", task: str = "t", key: str = "", running: Mapping[str, str] | None = None
    ) -> "list[Reader]":
        """Ask for an image for each prompt, all in one request."""
        context = CallerContext(task=task, owner=owner, idempotency_key=key)
        requests = [ask(prompt) for prompt in prompts]
        return [Reader(run) for run in self.queue.admit(requests, context, 8, running or {})]


class Call:
    """A method of a handle."""

    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class Reader:
    """Reads the events of one image in the background."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.events: list[Any] = []
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> Any:
        async for event in self.run.events():
            self.events.append(event)
        return self.events[-1]


async def settle(turns: int = 30) -> None:
    """Let everything happen that can happen now."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def prompts(streams: Sequence[Stream]) -> list[str]:
    """What they draw."""
    return [stream.prompt for stream in streams]
