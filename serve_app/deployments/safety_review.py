"""What the models' safety policies let out: images once they are reviewed, previews only where any image goes out."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

from ray.exceptions import RayTaskError

from serve_app.config import IngressConfig
from serve_app.deployments.lost_work import STREAM_ERRORS, answer_of
from serve_app.errors import ContentRefused, ReviewFailed
from serve_app.requests.events import GeneratedImage, Progress, Queued
from serve_app.requests.request import CallerContext, GenerationRequest

ATTEMPTS = 3
"""How many safety replicas may be lost with one image before it is withheld."""

log = logging.getLogger("darkroom.safety")


class SafetyReview:
    """Everything that the ingress shows of an image passes through here: previews, partial images, finished ones.

    Previews are not reviewed. `off` and `flag` let every image out, so its previews may go out too; with `blur` and
    `refuse` none is rendered, and none goes out.

    Args:
        checker: the safety checker's deployment handle; None where no policy needs one.
        config: has the policy of each model, and how long a review may take.
    """

    def __init__(self, checker: Any, config: IngressConfig) -> None:
        self._checker = checker
        self._config = config

    def shows_previews(self, model: str) -> bool:
        """Whether callers may see this model's unfinished images."""
        return self._config.settings_of(model).safety in ("off", "flag")

    def without_previews(self, model: str, context: CallerContext) -> CallerContext:
        """The context for the replica, which renders no preview that callers may not see."""
        return context if self.shows_previews(model) else replace(context, previews=0)

    def hide_preview(self, model: str, event: Queued | Progress) -> Queued | Progress:
        """The event, without its preview where callers may not see it: the policy may be newer than the preview."""
        if isinstance(event, Progress) and event.preview is not None and not self.shows_previews(model):
            return replace(event, preview=None)
        return event

    async def review(self, request: GenerationRequest, image: GeneratedImage) -> GeneratedImage:
        """The image as it may go out. An interrupted request's partial image is reviewed like any other.

        Raises:
            ContentRefused: it is flagged, and the policy is `refuse`.
            ReviewFailed: the checker failed, died, or did not answer within `review_timeout_s`.
        """
        policy = self._config.settings_of(request.model).safety
        if policy == "off":
            return image
        try:
            async with asyncio.timeout(self._config.review_timeout_s):
                return await self._ask(image, request, policy)
        except TimeoutError as error:
            raise failure(f"no answer within {self._config.review_timeout_s:g} s") from error
        except RayTaskError as error:
            if isinstance(error.cause, ContentRefused):
                raise error.cause from None
            raise failure(type(error.cause).__name__) from error
        except STREAM_ERRORS as error:
            raise failure(type(error).__name__) from error

    async def _ask(self, image: GeneratedImage, request: GenerationRequest, policy: str) -> GeneratedImage:
        """The checker's answer. Where its replica dies or is slow, another one is asked, once Serve has started it."""
        for attempt in range(1, ATTEMPTS + 1):
            response = self._checker.review.remote(image, request.output, policy)
            try:
                async with asyncio.timeout(self._config.review_timeout_s / 2):
                    return await answer_of(response)
            except RayTaskError:
                raise
            except TimeoutError:
                response.cancel()
            except STREAM_ERRORS:
                if attempt == ATTEMPTS:
                    raise
            except asyncio.CancelledError:
                response.cancel()
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
        raise failure(f"{ATTEMPTS} attempts were in vain")


def failure(reason: str) -> ReviewFailed:
    """The caller's error, and a line in the log. Neither repeats an error's text, which may hold what was sent."""
    log.error("an image was not reviewed and is withheld: %s", reason)
    return ReviewFailed(f"the safety checker could not review the image, so it is withheld ({reason}): try again")
