"""Everything that can go wrong, as a tree.

DarkroomError                       500  internal_error
|- ConfigError                      500  invalid_config      at start: the config file, named by the key's path
|  `- ModelLoadError                500  model_load_failed   at start: the weights, named by their path
|- Unauthorized                     401  unauthorized        the key is missing or unknown
|- NotFound                         404  not_found           there is no such request, result or preset
|- Cancelled                        409  cancelled           its owner stopped the request
|- LimitExceeded                    429  limit_exceeded      a limit of the caller is reached; see Retry-After
|- InvalidRequest                   422  invalid_request     names the field, its value and what is allowed
|  |- UnreadableBody                400  unreadable_body     the body cannot be decoded
|  |- InvalidIdempotencyKey         422  invalid_idempotency_key  malformed, or used for another request before
|  `- UnknownName                   422  unknown_name        a model, sampler, schedule or format that does not exist
|- BodyTooSlow                      408  body_too_slow       the upload took too long
|- BodyTooLarge                     413  body_too_large      refused before it is parsed
|- Overloaded                       429  overloaded          the queue is full; see Retry-After
|- NotReady                         503  not_ready           the model is warming up, draining or stopped
|  |- ReplicaFull                   503  replica_full        this replica has no room; another one is asked
|  |- Draining                      503  draining            this replica stops; its images go on in another one
|  `- DeviceLost                    503  device_lost         this replica's device is broken; it exits
|- ReviewFailed                     503  review_failed       the safety checker did not answer: the image is withheld
|- ContentRefused                   422  content_refused     the safety checker flagged the image
`- GenerationFailed                 500  generation_failed   this one image failed; its neighbours are not affected
   `- Poisoned                      500  poisoned            this image ended the replicas that drew it alone
"""

from collections.abc import Mapping
from reprlib import Repr
from typing import ClassVar, Self


class DarkroomError(Exception):
    """The root of the tree. `status` (HTTP) and `code` belong to the class, so they survive a process hop."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"


class ConfigError(DarkroomError):
    """The configuration cannot be served. The message names the key's path."""

    code = "invalid_config"


class ModelLoadError(ConfigError):
    """A model's files are missing, broken or refused. The message names the path and the fix."""

    code = "model_load_failed"


class InvalidRequest(DarkroomError):
    """One field of a request is not valid.

    Args:
        field: the field's name, as the caller wrote it, shortened where it is long.
        value: the value that was sent, shortened where it is long.
        limit: what is allowed, as a sentence without its subject ("must be ...").
    """

    status = 422
    code = "invalid_request"

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(field, value, limit)
        self.field = str(shorten(field))
        self.value = shorten(value)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.field}: {self.limit}, got {self.value!r}"

    def with_field_names(self, names: Mapping[str, str]) -> Self:
        """The same error, its field by the name that another API has for it."""
        return type(self)(names.get(self.field, self.field), self.args[1], self.limit)


class UnreadableBody(InvalidRequest):
    """The body cannot be decoded: it is not UTF-8 JSON, or not a valid form."""

    status = 400
    code = "unreadable_body"

    def __init__(self, field: str = "body", value: object = "unreadable content", limit: str = "") -> None:
        super().__init__(field, value, limit or "must be UTF-8 JSON of moderate depth, or a valid form")


class InvalidIdempotencyKey(InvalidRequest):
    """An `Idempotency-Key` that is malformed, or that the caller has used for another request."""

    code = "invalid_idempotency_key"


class UnknownName(InvalidRequest):
    """A name that is not configured or does not exist."""

    code = "unknown_name"


class Unauthorized(DarkroomError):
    """The request's key is missing or unknown."""

    status = 401
    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("the key is missing or unknown: send Authorization: Bearer KEY, or Basic with name and key")


class NotFound(DarkroomError):
    """What the path names does not exist, or belongs to another caller."""

    status = 404
    code = "not_found"


class Cancelled(DarkroomError):
    """The request's owner stopped it."""

    status = 409
    code = "cancelled"


class LimitExceeded(DarkroomError):
    """The caller has reached one of its limits."""

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
    """There is too much work. `retry_after_s` becomes the Retry-After header."""

    status = 429
    code = "overloaded"

    def __init__(
        self,
        retry_after_s: int,
        reason: str = "the queue is full",
        estimated_start_s: float | None = None,
        estimated_finish_s: float | None = None,
        limit: str = "queue_full",
    ) -> None:
        super().__init__(retry_after_s, reason, estimated_start_s, estimated_finish_s, limit)
        self.retry_after_s = retry_after_s
        self.reason = reason
        self.estimated_start_s = estimated_start_s  # of the request that is refused; None where it is not known
        self.estimated_finish_s = estimated_finish_s
        self.limit = limit  # one word, for metrics

    def __str__(self) -> str:
        return f"{self.reason}, try again in {self.retry_after_s} s"


class NotReady(DarkroomError):
    """The model cannot take requests now: it is warming up, draining or stopped."""

    status = 503
    code = "not_ready"


class ReplicaFull(NotReady):
    """This replica has no room for the request now. Callers never see it: the ingress waits, or asks another one."""

    code = "replica_full"


class Draining(NotReady):
    """This replica is about to stop. Its images go on in another one, from the resume point that came before this."""

    code = "draining"


class DeviceLost(NotReady):
    """This replica's device is broken for good. The replica exits; its images go on in another one."""

    code = "device_lost"


class ReviewFailed(DarkroomError):
    """The safety checker did not review the image, so it is withheld. The message says why."""

    status = 503
    code = "review_failed"


class ContentRefused(DarkroomError):
    """The safety checker flagged the image, and the model's policy is to refuse it."""

    status = 422
    code = "content_refused"


class GenerationFailed(DarkroomError):
    """This image could not be generated. The message says why."""

    code = "generation_failed"


class Poisoned(GenerationFailed):
    """Every replica that drew this image alone died of it, so no other one is asked."""

    code = "poisoned"


def shorten(value: object, limit: int = 80) -> object:
    """`value`, or the beginning of it where its text is longer than `limit` characters."""
    if isinstance(value, str | bytes):
        return value if len(value) <= limit else f"{value[:limit]!s}... ({len(value)} characters)"
    # The whole of a large object is never written: that would stop the event loop.
    brief = Repr()
    brief.maxstring = brief.maxother = brief.maxlong = limit
    text = brief.repr(value)
    return value if len(text) <= limit and "..." not in text else f"{text[:limit]}..."
