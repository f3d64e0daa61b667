"""The front of the graph: HTTP in, one hop to the model's replicas, events back."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.api.app import create_app
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.api.rate_limits import RateLimiter
from serve_app.config import EdgeSettings, IngressConfig, TracingConfig
from serve_app.config.names import INGRESS
from serve_app.config.proxy_variable import warn_unguarded_proxy
from serve_app.config.request_checks import find_impossible_defaults, find_unusable_settings
from serve_app.deployments import serve_state
from serve_app.deployments.capabilities_cache import CapabilitiesCache
from serve_app.deployments.current_app import CurrentApp
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.metrics import IngressMetrics
from serve_app.deployments.published_settings import publish_settings
from serve_app.deployments.queues import ModelQueue
from serve_app.deployments.readiness import Readiness
from serve_app.deployments.spans import start_tracing
from serve_app.deployments.tasks import least_advanced
from serve_app.errors import ConfigError, DarkroomError, GenerationFailed, NotReady, Overloaded
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import Event, GeneratedImage, MemoryUse, Progress, Queued, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest

ATTEMPTS = 3
REUSE_SECONDS = 5.0  # for so long, requests are resolved without asking the cache again


@serve.ingress()
class Ingress:
    """A `Service` over deployment handles: one for each model, and the safety checker's.

    Args:
        replicas: each model's handle, by its name.
        safety: the safety checker's handle; None where there is none.
        secret: signs result links where the config names no `secret_file`. All ingress replicas have the same one.
        tracing: where spans go; None where tracing is off.
    """

    def __init__(
        self,
        replicas: Mapping[str, DeploymentHandle],
        safety: DeploymentHandle | None,
        secret: str,
        tracing: TracingConfig | None,
    ) -> None:
        write_plain_lines()
        warn_unguarded_proxy()
        self._replicas = replicas
        self._safety = safety
        self._secret = secret
        self._provider = start_tracing(tracing)
        self._metrics = IngressMetrics()
        self._live = LiveConfig(INGRESS, IngressConfig)
        self.config = IngressConfig()
        self._reused: dict[str, ModelCapabilities] = {}
        self._limiter = RateLimiter()
        self._app = CurrentApp()
        self._capabilities = CapabilitiesCache(replicas)
        self._queues = {name: ModelQueue(handle.options(stream=True)) for name, handle in replicas.items()}
        self._readiness = Readiness(self._live, self._capabilities, replicas)

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
            self._limiter.share = 1 / serve_state.count_replicas()
            app = await asyncio.to_thread(
                create_app,
                self,
                config,
                limiter=self._limiter,
                secret=self._secret,
                provider=self._provider,
                server_sends_request_id=True,
            )
        except ConfigError as error:
            self._live.refuse(error)
            return
        await asyncio.to_thread(publish_settings, serve.get_replica_context().app_name, EdgeSettings.of(config))
        self._app.swap(app)
        self._live.accept(config)
        self.config = config
        self._reused.clear()
        self._readiness.announce()

    def _check(self, config: IngressConfig) -> None:
        """Refuse settings that do not go with the models. Raises ConfigError."""
        several = serve_state.count_replicas() > 1
        found = config.find_contradictions(self.models, self._safety is not None, several)
        for name in self.models:
            # Before a replica has said what its model can do, `Readiness` waits to check that.
            model = self._capabilities.known.get(name)
            found += find_unusable_settings(config, name, model) if model else find_impossible_defaults(config, name)
        if found:
            raise ConfigError("\n".join(f"deployments.{INGRESS}.user_config.{line}" for line in found))

    async def check_health(self) -> None:
        """Follow the number of ingress replicas: each allows its share of every key's limits."""
        self._limiter.share = 1 / serve_state.count_replicas()

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

    async def generate(self, request: GenerationRequest, context: CallerContext) -> AsyncGenerator[Event, None]:
        """The events of one request. Where a replica dies, another goes on from the last resume point.

        The same request gives the same image wherever it runs, so the caller notices the delay only.
        """
        saved: ResumePoint | None = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self._queues[request.model].generate(request, context, saved)) as events:
                    async for event in events:
                        if isinstance(event, GeneratedImage):
                            yield await self._review(request, event)
                            return
                        if isinstance(event, ResumePoint):
                            saved = event
                        else:
                            yield event
            except BackPressureError as error:
                raise Overloaded(self.config.settings_of(request.model).retry_after_s) from error
            except DeploymentUnavailableError as error:
                raise NotReady(f"model {request.model} has no replica that works") from error
            except RayActorError as error:
                if attempt == ATTEMPTS:
                    raise GenerationFailed(f"{ATTEMPTS} replicas died while they generated this image") from error
            except RayTaskError as error:
                raise _cause(error) from None

    async def _review(self, request: GenerationRequest, image: GeneratedImage) -> GeneratedImage:
        """Ask the safety checker where the model's policy wants it."""
        policy = self.config.settings_of(request.model).safety if self._safety is not None else "off"
        if self._safety is None or policy == "off":
            return image
        return await self._safety.review.remote(image, request.output, policy)

    async def cancel(self, task: str, owner: str) -> int:
        """See `Service`."""
        return await self._stop("cancel", task, owner)

    async def interrupt(self, task: str, owner: str) -> int:
        """See `Service`."""
        return await self._stop("interrupt", task, owner)

    async def _stop(self, method: str, task: str, owner: str) -> int:
        """Waiting requests leave their queue, running ones are told. Returns how many images that were."""
        waiting = sum(queue.leave(task, owner) for queue in self._queues.values())
        return waiting + sum(await self._ask_all(method, task, owner))

    async def progress_of(self, task: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        """See `Service`."""
        answers = await self._ask_all("progress_of", task, owner, preview)
        waiting = [queue.position_of(entry) for queue in self._queues.values() for entry in queue.find(task, owner)]
        return least_advanced([*waiting, *(answer for answer in answers if answer is not None)])

    async def memory(self) -> list[MemoryUse]:
        """See `Service`."""
        return await self._ask_all("memory")

    async def _ask_all(self, method: str, *args: str | bool) -> list[Any]:
        """Every replica's answer."""
        asked = [handle.broadcast(method, *args).results_async() for handle in self._replicas.values()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [one for answer in answers if not isinstance(answer, BaseException) for one in answer]

    def count_response(self, record: AccessRecord) -> None:
        """See `Service`."""
        self._metrics.count_response(record)

    async def warming_up(self) -> list[str]:
        """See `Service`."""
        return await self._readiness.find_missing()

    async def config_errors(self) -> list[str]:
        """See `Service`."""
        return await self._readiness.find_config_errors()


def _cause(error: RayTaskError) -> DarkroomError:
    """The error as the replica raised it; its text there would be the remote traceback."""
    cause = error.cause
    return cause if isinstance(cause, DarkroomError) else GenerationFailed(f"{type(cause).__name__}: {cause}")
