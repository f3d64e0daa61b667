"""What one caller may use: the limits of a key, and those of callers without one."""

from typing import Annotated

from pydantic import Field

from serve_app.config.strict import Positive, Strict


class CallerLimits(Strict):
    """None means no limit. The limits hold for all ingress replicas together."""

    rate: Annotated[float | None, Field(gt=0, description="Requests per second.")] = None
    burst: Annotated[Positive, Field(description="How many requests may come at once, where there is a rate.")] = 10
    concurrency: Annotated[Positive | None, Field(description="Images in flight.")] = None
    daily_device_seconds: Annotated[
        float | None, Field(gt=0, description="The denoiser's time in any 24 hours, seconds.")
    ] = None
    max_images: Annotated[Positive | None, Field(description="Images of one request.")] = None
    models: Annotated[tuple[str, ...] | None, Field(description="The models that may be used.")] = None

    @property
    def are_counted(self) -> bool:
        """Whether any of them needs to be counted over requests."""
        return not (self.rate is None and self.concurrency is None and self.daily_device_seconds is None)


class AnonymousLimits(CallerLimits):
    """For each address that calls without a key: far above use, so that one address cannot take all of a server."""

    rate: Annotated[float | None, Field(gt=0, description="Requests per second.")] = 200
    burst: Annotated[Positive, Field(description="How many requests may come at once, where there is a rate.")] = 400
    concurrency: Annotated[Positive | None, Field(description="Images in flight.")] = 32
