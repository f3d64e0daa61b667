"""Everything that can go wrong, drawn once.

DarkroomError                       500  internal_error
|- ConfigError                      500  invalid_config      at start: the YAML, named by its key's path
|  `- ModelLoadError                500  model_load_failed   at start: the weights, named by their path
|- Unauthorized                     401  unauthorized        no key, or one nobody knows
|- NotFound                         404  not_found           a task, result or preset that is not there
|- Cancelled                        409  cancelled           stopped by its owner while it was being drawn
|- LimitExceeded                    429  limit_exceeded      one of the key's own limits; Retry-After says when
|- InvalidRequest                   422  invalid_request     names field, value and limit
|  `- UnknownName                   422  unknown_name        a model, sampler, schedule or format nobody knows
|- BodyTooSlow                      408  body_too_slow       its upload took too long
|- BodyTooLarge                     413  body_too_large      refused before it is parsed
|- Overloaded                       429  overloaded          the queue is full; Retry-After says when
|- NotReady                         503  not_ready           warming up, draining or stopped
|- ContentRefused                   422  content_refused     the safety checker flagged the picture
`- GenerationFailed                 500  generation_failed   this one image; its neighbours are not touched
"""

from collections.abc import Mapping
from typing import ClassVar, Self


class DarkroomError(Exception):
    """Root of the tree. `status` and `code` belong to the class, so they survive a process hop."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"


class ConfigError(DarkroomError):
    """The configuration cannot be served; the message names the key's path."""

    code = "invalid_config"


class ModelLoadError(ConfigError):
    """A model's files are missing, broken or refused; the message names the path and the fix."""

    code = "model_load_failed"


class InvalidRequest(DarkroomError):
    """One field of a request is out of its limit.

    Args:
        field: the name the caller used.
        value: what was sent, shortened where it is long.
        limit: what would have been accepted, as a sentence without a subject ("must be ...").
    """

    status = 422
    code = "invalid_request"

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(field, value, limit)
        self.field = field
        self.value = shorten(value)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.field}: {self.limit}, got {self.value!r}"

    def with_field_names(self, names: Mapping[str, str]) -> Self:
        """The same error, its field by the name that another API has for it."""
        return type(self)(names.get(self.field, self.field), self.args[1], self.limit)


class UnknownName(InvalidRequest):
    """A name that is not configured or not known."""

    code = "unknown_name"


class Unauthorized(DarkroomError):
    """The request has no key, or one nobody knows."""

    status = 401
    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("a valid key is needed: Authorization: Bearer KEY, or Basic with the key's name and the key")


class NotFound(DarkroomError):
    """What was named in the path is not there, or is not the caller's."""

    status = 404
    code = "not_found"


class Cancelled(DarkroomError):
    """The request's owner stopped it."""

    status = 409
    code = "cancelled"


class LimitExceeded(DarkroomError):
    """The caller has used up one of its key's limits."""

    status = 429
    code = "limit_exceeded"

    def __init__(self, limit: str, retry_after_s: float) -> None:
        super().__init__(limit, retry_after_s)
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.limit}, try again in {self.retry_after_s:.0f} s"


class BodyTooSlow(DarkroomError):
    """The request's body did not arrive within `seconds`."""

    status = 408
    code = "body_too_slow"

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"body: must arrive within {self.seconds:g} s"


class BodyTooLarge(DarkroomError):
    """The request's body is over `limit` bytes."""

    status = 413
    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"body: must be at most {self.limit} bytes"


class Overloaded(DarkroomError):
    """The queue is full; `retry_after_s` is what the Retry-After header says."""

    status = 429
    code = "overloaded"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the queue is full, try again in {self.retry_after_s} s"


class NotReady(DarkroomError):
    """Nothing can be drawn now: the model warms up, drains or has stopped."""

    status = 503
    code = "not_ready"


class ContentRefused(DarkroomError):
    """The picture is not shown: the safety checker flagged it, and the model's policy is to refuse."""

    status = 422
    code = "content_refused"


class GenerationFailed(DarkroomError):
    """This image could not be drawn; the message says why."""

    code = "generation_failed"


def shorten(value: object, limit: int = 80) -> object:
    """`value`, or the beginning of it where its text is longer than `limit` characters."""
    text = str(value)
    return value if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
