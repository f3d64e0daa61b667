"""What the HTTP layer needs of whoever draws the images. The ingress deployment is one; tests have another."""

from collections.abc import AsyncIterator
from typing import Protocol

from serve_app.config import AppConfig
from serve_app.engine.request import Event, GenerationRequest


class Service(Protocol):
    """Draws images."""

    @property
    def config(self) -> AppConfig:
        """The models it serves."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Events of one request, a GeneratedImage last; raises a DarkroomError. Closing the iterator cancels."""
        ...

    async def warming_up(self) -> list[str]:
        """The models that have not drawn their warm-up image yet."""
        ...
