"""Which errors mean that a request should go on in another replica, and which are the caller's."""

import logging
from collections.abc import Awaitable
from typing import Literal, TypeVar

from grpc import RpcError
from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import RayServeException

from serve_app.errors import (
    Cancelled,
    ConfigError,
    DarkroomError,
    DeviceLost,
    Draining,
    GenerationFailed,
    NotReady,
    ReplicaFull,
)

log = logging.getLogger("darkroom.ingress")

T = TypeVar("T")

LossReason = Literal[
    "connection_lost",
    "device_lost",
    "died",
    "draining",
    "full",
    "hung_step",
    "left",
    "object_lost",
    "silent",
    "stopped",
    "stream_ended",
    "unavailable",
]
"""One word for metrics. `left`: Serve no longer routes to the replica, and it does not answer."""


class LostWork(Exception):
    """A replica no longer draws the request. It goes on in another one, from its last resume point.

    Args:
        reason: why.
        ended_replica: the replica died, or is of no use any more: what ran there is suspect. None if that is unknown.
        is_refusal: the replica is well, and did not want it now. However often that happens, it ends no request.
    """

    def __init__(self, reason: LossReason, ended_replica: bool | None = False, is_refusal: bool = False) -> None:
        super().__init__(reason)
        self.reason: LossReason = reason
        self.ended_replica = ended_replica
        self.is_refusal = is_refusal


STREAM_ERRORS = (RayError, RayServeException, RpcError)
"""What a call of a replica raises."""


class RaisedByReplica:
    """Inside, an error that is none of Ray's, Serve's or gRPC's becomes a RayTaskError: the replica raised it.

    Ray wraps it so. A handle that calls by gRPC raises it as it is, and then it could not be told from our own errors.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        known = (*STREAM_ERRORS, StopAsyncIteration)
        if isinstance(error, Exception) and not isinstance(error, known):
            raise RayTaskError("call", "", error) from None


async def answer_of(response: Awaitable[T]) -> T:
    """What a replica answers, or the next item of its stream. What the replica itself raised is a RayTaskError."""
    with RaisedByReplica():
        return await response


def as_own_error(error: Exception) -> LostWork | DarkroomError:
    """What an error of a replica's stream means for its request: LostWork, or the error that the caller gets."""
    if isinstance(error, RayTaskError):
        return _as_replica_error(error.cause)
    match error:
        case ObjectLostError():
            return LostWork("object_lost")
        case RayServeException():
            return LostWork("unavailable")
        case RayActorError() | WorkerCrashedError() | NodeDiedError() | OutOfMemoryError() | LocalRayletDiedError():
            # One that is unavailable may come back.
            is_unknown = isinstance(error, ActorUnavailableError)
            return LostWork("connection_lost", None) if is_unknown else LostWork("died", ended_replica=True)
        case _:
            return LostWork("connection_lost", ended_replica=None)


def _as_replica_error(error: object) -> LostWork | DarkroomError:
    """What the replica raised, where it concerns the caller. Other errors name files, and are for the log."""
    match error:
        case ReplicaFull():
            return LostWork("full", is_refusal=True)
        case Draining():
            return LostWork("draining", is_refusal=True)
        case DeviceLost():
            return LostWork("device_lost", ended_replica=True)
        case NotReady():
            return LostWork("stopped")
        case Cancelled():  # by its lease: who stops an image stops it here
            return LostWork("stream_ended")
        case DarkroomError() if not isinstance(error, ConfigError):
            return error
        case RayError() | RpcError():
            return LostWork("unavailable")
    # The text of an error that nobody expected may hold what was sent.
    log.error("a replica failed: %s", error if isinstance(error, ConfigError) else type(error).__name__)
    return GenerationFailed(f"the model's replica failed ({type(error).__name__}): the server's log says more")
