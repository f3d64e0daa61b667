"""The safety checker as a deployment of its own, shared by all models: batched over whoever asks at the time."""

import asyncio
from dataclasses import replace
from typing import Any

from ray import serve

from serve_app.config import SafetyConfig
from serve_app.errors import ContentRefused
from serve_app.models.safety_checker import SafetyChecker
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import blur, open_image
from serve_app.requests.request import OutputSpec


class SafetyReplica:
    """Reviews finished files."""

    def __init__(self, config: SafetyConfig) -> None:
        self._checker = SafetyChecker(config.checker, config.device)
        batched: Any = self._flags
        batched.set_max_batch_size(config.max_batch_size)
        batched.set_batch_wait_timeout_s(config.batch_wait_s)

    async def review(self, image: GeneratedImage, output: OutputSpec, policy: str) -> GeneratedImage:
        """The image with its verdict, blurred where it is flagged and `policy` says so; raises ContentRefused."""
        flagged = await self._flags(image.content)
        if flagged and policy == "refuse":
            raise ContentRefused("the safety checker flagged the picture: change the prompt or the seed")
        content = (
            await asyncio.to_thread(blur, image.content, output) if flagged and policy == "blur" else image.content
        )
        return replace(image, content=content, flagged=flagged)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def _flags(self, contents: list[bytes]) -> list[bool]:
        images = [open_image(content) for content in contents]
        return await asyncio.to_thread(self._checker.flags, images)
