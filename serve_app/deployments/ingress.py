"""The front of the graph: HTTP in, one hop to the model's replicas, events back."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.api.app import create_app
from serve_app.api.key_claims import KeyClaim
from serve_app.api.keyed_requests import KeyedRequests
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.api.result_store import ResultStore
from serve_app.config import EdgeSettings, IngressConfig, TracingConfig, UsageConfig
from serve_app.config.names import INGRESS
from serve_app.config.proxy_variable import warn_unguarded_proxy
from serve_app.config.request_checks import find_impossible_defaults, find_unusable_settings
from serve_app.deployments import serve_state
from serve_app.deployments.capabilities_cache import CapabilitiesCache
from serve_app.deployments.current_app import CurrentApp
from serve_app.deployments.event_stream import EventStream
from serve_app.deployments.image_run import ImageRun
from serve_app.deployments.keyed_peers import KeyedPeers
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.metrics import IngressMetrics
from serve_app.deployments.model_queues import ModelQueues
from serve_app.deployments.peers import Peers
from serve_app.deployments.published_settings import SettingsPublisher
from serve_app.deployments.readiness import Readiness
from serve_app.deployments.results_in_use import ResultsInUse
from serve_app.deployments.safety_review import SafetyReview
from serve_app.deployments.shared_usage import SharedUsage
from serve_app.deployments.spans import start_tracing
from serve_app.deployments.task_calls import Place, TaskCalls
from serve_app.deployments.tasks import least_advanced
from serve_app.deployments.usage_actor import connect_usage
from serve_app.errors import ConfigError
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import Event, GeneratedImage, MemoryUse, Progress, Queued
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.work import estimate_work

REUSE_SECONDS = 5.0  # for so long, requests are resolved without asking the cache again


@serve.ingress()
class Ingress:
    """A `Service` over deployment handles: one for each model, and the safety checker's.

    Args:
        replicas: each model's handle, by its name.
        safety: the safety checker's handle; None where there is none.
        usage: where it is kept what each caller has used.
        tracing: where spans go; None where tracing is off.
    """

    def __init__(
        self,
        replicas: Mapping[str, DeploymentHandle],
        safety: DeploymentHandle | None,
        usage: UsageConfig,
        tracing: TracingConfig | None,
    ) -> None:
        write_plain_lines()
        warn_unguarded_proxy()
        self._replicas = replicas
        self._checker = safety
        self._results = ResultsInUse()
        self._edge = SettingsPublisher()
        self._usage = SharedUsage(connect_usage(usage), serve_state.count_replicas)
        self._provider = start_tracing(tracing)
        self._metrics = IngressMetrics()
        self._live = LiveConfig(INGRESS, IngressConfig)
        self.config = IngressConfig()
        self._safety = SafetyReview(safety, self.config)
        self._reused: dict[str, ModelCapabilities] = {}
        self._app = CurrentApp()
        self._capabilities = CapabilitiesCache(replicas)
        name = f"{INGRESS}#{uuid.uuid4().hex[:8]}"
        self._queues = ModelQueues(replicas, name)
        peers = Peers()
        self._tasks = TaskCalls(self._queues.by_model, peers)
        self._keyed = KeyedRequests(KeyedPeers(name, peers, self._queues.by_model))
        self._readiness = Readiness(self._live, self._capabilities, self._queues.fleets)

    def __serve_build_asgi_app__(self) -> CurrentApp:
        return self._app

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Build the HTTP application for a config, and let it have all further requests.

        Raises:
            ConfigError: the first config has mistakes.
        """
        try:
            config = self._live.read(user_config).with_default_model(self.models[0])
            self._check(config)
            results, app = await asyncio.to_thread(self._create_app, config)
            edge = EdgeSettings.of(config)
            await self._usage.start()
        except ConfigError as error:
            self._live.refuse(error)
            return
        await self._edge.publish(edge)
        self._app.swap(app)
        self._results.use(results)
        self._keyed.use(config.idempotency)
        self._live.accept(config)
        self.config = config
        self._safety = SafetyReview(self._checker, config)
        self._reused.clear()
        self._queues.use(config)
        self._tasks.start()
        self._readiness.announce()

    def _create_app(self, config: IngressConfig) -> tuple[ResultStore, FastAPI]:
        """The store of results, and the application over it. It reads files. Raises ConfigError."""
        results = self._results.open(config.results)
        app = create_app(
            self,
            config,
            results=results,
            usage=self._usage,
            keyed=self._keyed,
            provider=self._provider,
            server_sends_request_id=True,
        )
        return results, app

    def _check(self, config: IngressConfig) -> None:
        """Refuse settings that do not go with the models. Raises ConfigError."""
        several = serve_state.count_replicas() > 1
        found = config.find_contradictions(self.models, self._checker is not None, several)
        for name in self.models:
            # Before a replica has said what its model can do, `Readiness` waits to check that.
            model = self._capabilities.known.get(name)
            found += find_unusable_settings(config, name, model) if model else find_impossible_defaults(config, name)
        if found:
            raise ConfigError("\n".join(f"deployments.{INGRESS}.user_config.{line}" for line in found))

    @property
    def models(self) -> tuple[str, ...]:
        """See `Service`."""
        return tuple(self._replicas)

    async def capabilities(self, model: str) -> ModelCapabilities:
        """See `Service`. What a replica said is used for a while, and then asked for anew."""
        if model not in self._reused:
            self._reused[model] = self._with_settings(model, await self._capabilities.get(model))
            asyncio.get_running_loop().call_later(REUSE_SECONDS, self._reused.pop, model, None)
        return self._reused[model]

    def known_capabilities(self) -> Mapping[str, ModelCapabilities]:
        """See `Service`."""
        return {name: self._with_settings(name, known) for name, known in self._capabilities.known.items()}

    def _with_settings(self, model: str, capabilities: ModelCapabilities) -> ModelCapabilities:
        settings = self.config.settings_of(model)
        return capabilities.with_settings(settings.defaults, settings.limits, settings.ai_mark)

    def submit(
        self, requests: Sequence[GenerationRequest], context: CallerContext, running: Mapping[str, str]
    ) -> list[EventStream]:
        """See `Service`."""
        model = requests[0].model
        context = self._safety.without_previews(model, context)
        scale = self._capabilities.known[model].vae_scale_factor
        queue = self._queues.by_model[model]
        runs = queue.admit(requests, context, scale, running)
        return [EventStream(self._show(run), partial(queue.remove, run)) for run in runs]

    async def check_room(self, model: str, params: GenerationParams, context: CallerContext) -> None:
        """See `Service`."""
        self._queues.by_model[model].check(
            params.num_images, estimate_work(params, await self.capabilities(model)), context
        )

    async def _show(self, run: ImageRun) -> AsyncGenerator[Event, None]:
        """The events of one image, as far as the model's safety policy lets them out."""
        image: GeneratedImage | None = None
        async with aclosing(run.events()) as events:
            async for event in events:
                if isinstance(event, GeneratedImage):
                    image = event
                else:
                    yield self._safety.hide_preview(run.request.model, event)
        if image is not None:  # its replica is free by now: a slow review keeps no model waiting
            yield await self._safety.review(run.request, image)

    async def cancel(self, task: str, owner: str) -> int:
        """See `Service`."""
        return await self._tasks.cancel(task, owner)

    async def interrupt(self, task: str, owner: str) -> int:
        """See `Service`."""
        return await self._tasks.interrupt(task, owner)

    async def progress_of(self, task: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        """See `Service`."""
        found = await self._tasks.progress_of(task, owner, lambda model: preview and self._safety.shows_previews(model))
        return least_advanced(self._safety.hide_preview(model, one) if model else one for model, one in found)

    def stop_here(self, task: str, owner: str, only_waiting: bool = False) -> int:
        """See `TaskCalls`. Other ingress replicas call it."""
        return self._tasks.stop_here(task, owner, only_waiting)

    def find_here(self, task: str, owner: str) -> list[Place]:
        """See `TaskCalls`. Other ingress replicas call it."""
        return self._tasks.find_here(task, owner)

    def claim_of(self, digest: str, follows: bool) -> KeyClaim | None:
        """See `KeyedRequests`. Other ingress replicas call it."""
        return self._keyed.claim_of(digest, follows)

    def images_of(self, digest: str) -> tuple[GeneratedImage, ...]:
        """See `KeyedRequests`. Other ingress replicas call it."""
        return self._keyed.images_of(digest)

    async def memory(self) -> list[MemoryUse]:
        """See `Service`."""
        return await self._queues.ask_replicas("memory")

    def count_response(self, record: AccessRecord) -> None:
        """See `Service`."""
        self._metrics.count_response(record)

    async def missing_models(self) -> list[str]:
        """See `Service`."""
        return await self._readiness.find_missing()

    async def config_errors(self) -> list[str]:
        """See `Service`."""
        return await self._readiness.find_config_errors()
