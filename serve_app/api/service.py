"""What the HTTP layer needs of whoever draws the images. The ingress deployment is one; tests have another."""

from collections.abc import AsyncIterator
from typing import Protocol

from serve_app.config import AppConfig
from serve_app.requests.events import Event, MemoryUse, Progress, Queued
from serve_app.requests.request import CallerContext, GenerationRequest


class Service(Protocol):
    """Draws images."""

    @property
    def config(self) -> AppConfig:
        """The models it serves."""
        ...

    def generate(self, request: GenerationRequest, context: CallerContext) -> AsyncIterator[Event]:
        """Events of one request, a GeneratedImage last; raises a DarkroomError. Closing the iterator cancels."""
        ...

    async def cancel(self, task: str, owner: str) -> int:
        """Stop the images of an owner's task, wherever they are drawn; how many that were."""
        ...

    async def interrupt(self, task: str, owner: str) -> int:
        """Let what is drawn of an owner's task end with its next step, as it is then; the rest is stopped."""
        ...

    async def progress_of(self, task: str, owner: str) -> Queued | Progress | None:
        """How far an owner's task is; None where there is none."""
        ...

    async def memory(self) -> list[MemoryUse]:
        """What each process that draws holds."""
        ...

    def note(self, line: dict[str, object]) -> None:
        """Count an answer; `line` is what the access log has of it."""
        ...

    async def warming_up(self) -> list[str]:
        """The models that have not drawn their warm-up image yet."""
        ...
