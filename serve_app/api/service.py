"""`Service`: what the HTTP application needs from whoever generates the images.

The ingress deployment implements it over Ray; tests implement it without a model.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from serve_app.api.middleware.access_log import AccessRecord
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import Event, MemoryUse, Progress, Queued
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest


class Events(Protocol):
    """The events of one image, a GeneratedImage last; raises a DarkroomError."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def aclose(self) -> None:
        """Free all that the image holds. It ends the work, also where nobody has begun to read."""
        ...


class Service(Protocol):
    """Generates images, and tells how far they are."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are served."""
        ...

    async def capabilities(self, model: str) -> ModelCapabilities:
        """What a model can do. Waits for its first replica where none has said so yet. Raises NotReady."""
        ...

    def known_capabilities(self) -> Mapping[str, ModelCapabilities]:
        """What is known of each model so far, without waiting. A model at zero replicas is as it was last."""
        ...

    async def check_room(self, model: str, params: GenerationParams, context: CallerContext) -> None:
        """Refuse what could not be done by its deadline, before its images are decoded. Raises Overloaded."""
        ...

    def submit(
        self, requests: Sequence[GenerationRequest], context: CallerContext, running: Mapping[str, str]
    ) -> Sequence[Events]:
        """Accept all images of a request, or none. The events of each, which must be closed in the end.

        `running` are those that replicas draw already, see `KeyPeers.find_running`. A request that has any is accepted.

        Raises:
            Overloaded: the queue is full, or they would not be done by their deadline.
        """
        ...

    async def cancel(self, task: str, owner: str) -> int:
        """Stop all images of an owner's task; returns how many were stopped."""
        ...

    async def interrupt(self, task: str, owner: str) -> int:
        """End all images of an owner's task early; returns how many.

        An image in denoising ends with its next step and is returned as it is then. An image in the queue is stopped.
        """
        ...

    async def progress_of(self, task: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        """How far an owner's task is; None where there is no such task.

        Of several images, the least advanced of those that have begun counts. With `preview`, its next step is
        rendered, and a later call returns that.
        """
        ...

    async def memory(self) -> list[MemoryUse]:
        """The memory of each process that runs a model."""
        ...

    def count_response(self, record: AccessRecord) -> None:
        """Count one HTTP response in the metrics."""
        ...

    async def missing_models(self) -> list[str]:
        """The models that should be up and have no replica that answers: they warm up, or all replicas are dead.

        Raises:
            ConfigError: a checkpoint cannot follow the defaults that the first config gives its model.
        """
        ...

    async def config_errors(self) -> list[str]:
        """What is wrong with the config in force, and why the latest change of any deployment is refused.

        A line for each mistake.
        """
        ...
