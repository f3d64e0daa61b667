"""The safety checker as a deployment of its own. All models share it, so it checks images of many callers at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import serve

from serve_app.config import SafetyConfig
from serve_app.config.names import SAFETY
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.logs import write_plain_lines
from serve_app.errors import ConfigError, ContentRefused, NotReady
from serve_app.models.paused_gc import paused_gc
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import OutputSpec, blur_image, open_image

if TYPE_CHECKING:
    from serve_app.models.safety_checker import SafetyChecker

MAX_BATCH_SECONDS = 120.0
"""A batch that takes longer hangs, and those after it wait for it."""


class SafetyReplica:
    """Reviews finished images."""

    def __init__(self) -> None:
        write_plain_lines()
        self._config = LiveConfig(SAFETY, SafetyConfig)
        self._checker: SafetyChecker | None = None
        self._batch_began: float | None = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the checker that the config names, and set how it batches.

        Raises:
            ConfigError: the first config has mistakes, or its checker cannot be loaded.
        """
        try:
            config = self._config.read(user_config)
            if self._checker is None or names_another(self._config.current, config):
                self._checker = await asyncio.to_thread(load_checker, config)
        except ConfigError as error:
            self._config.refuse(error)
            return
        batched: Any = self._flags
        batched.set_max_batch_size(config.max_batch_size)
        batched.set_batch_wait_timeout_s(config.batch_wait_s)
        self._config.accept(config)

    async def review(self, image: GeneratedImage, output: OutputSpec, policy: str) -> GeneratedImage:
        """The image with its verdict, blurred if it is flagged and `policy` is `blur`.

        Raises:
            ContentRefused: it is flagged, and `policy` is `refuse`.
        """
        flagged = await self._flags(image.content)
        if flagged and policy == "refuse":
            raise ContentRefused("the safety checker flagged the image: change the prompt or the seed")
        blurred = flagged and policy == "blur"
        content = await asyncio.to_thread(blur_image, image.content, output) if blurred else image.content
        return replace(image, content=content, flagged=flagged)

    async def check_health(self) -> None:
        """Raise NotReady where no checker is loaded, or where it hangs. Serve then replaces the replica."""
        if self._checker is None:
            raise NotReady("user_config must be given: no safety checker is loaded")
        if self._batch_began is not None and time.monotonic() - self._batch_began > MAX_BATCH_SECONDS:
            raise NotReady(f"the safety checker has not answered for {MAX_BATCH_SECONDS:g} s")

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def _flags(self, contents: list[bytes]) -> list[bool]:
        assert self._checker is not None
        self._batch_began = time.monotonic()
        try:
            return await asyncio.to_thread(find_flagged, self._checker, contents)
        finally:
            self._batch_began = None


def find_flagged(checker: "SafetyChecker", contents: Sequence[bytes]) -> list[bool]:
    """Decode image files and check them: work for a thread."""
    return checker.flags([open_image(content) for content in contents])


def names_another(current: SafetyConfig, config: SafetyConfig) -> bool:
    """Whether `config` wants another checker than `current`, or the same one elsewhere."""
    return any(getattr(current, key) != getattr(config, key) for key in ("checker", "revision", "device"))


def load_checker(config: SafetyConfig) -> "SafetyChecker":
    """Load the checker. Raises ModelLoadError."""
    # Imported here, not above: torch and transformers take seconds, and whoever builds the application imports this
    # module as well.
    with paused_gc():
        from serve_app.models.safety_checker import SafetyChecker

    return SafetyChecker(config)
