"""Admission: the limits of a caller, held from before a request's images are decoded until its response is sent."""

import re
import secrets
from collections.abc import Callable, Mapping
from copy import copy
from typing import Protocol, get_args

from serve_app.api.keys import Caller
from serve_app.api.usage_ledger import Lease, UsageLedger
from serve_app.errors import InvalidRequest, LimitExceeded, UnknownName
from serve_app.requests.idempotency import IDEMPOTENCY_HEADER, RequestKey
from serve_app.requests.params import GenerationParams, Priority
from serve_app.requests.sizes import check_range

DEADLINE_HEADER = "X-Deadline-Ms"
PRIORITY_HEADER = "X-Priority"
DEADLINE = re.compile(r"[1-9][0-9]{0,11}")


class Usage(Protocol):
    """Counts what callers use. The ingress deployment shares it with the other ingress replicas."""

    @property
    def holder(self) -> str:
        """The name under which requests are counted here."""
        ...

    async def admit(self, lease: Lease) -> None:
        """Count a request; raises LimitExceeded, and then counts nothing. It takes a second at most."""
        ...

    async def end(self, lease: Lease) -> None:
        """An admitted request has ended. The place is free even where the caller is cancelled at the first `await`."""
        ...


class LocalUsage:
    """A `Usage` of this process alone."""

    holder = "local"

    def __init__(self, ledger: UsageLedger | None = None) -> None:
        self.ledger = ledger or UsageLedger()

    async def admit(self, lease: Lease) -> None:
        """See `Usage`."""
        self.ledger.expire()
        self.ledger.admit(lease)

    async def end(self, lease: Lease) -> None:
        """See `Usage`."""
        self.ledger.end(lease.caller, lease.id)


class KnownWork(Protocol):
    """Which requests with an `Idempotency-Key` join others, and so draw nothing of their own."""

    def is_known_here(self, key: RequestKey) -> bool:
        """Whether this ingress replica works for the key, or has its result."""
        ...

    async def is_known(self, key: RequestKey, model: str, images: int) -> bool:
        """Whether any ingress replica does, or a replica of the model draws one of its images."""
        ...


class Admission:
    """One HTTP request's place within the limits of its caller. Made for each request, empty until `admit`.

    Args:
        caller: who asks.
        usage: counts what callers use.
        model_name: the name of the served model that a request's word means; raises UnknownName.
        max_images: the most images that one request to a model may ask for, by the model's name.
        known: knows which requests join others.
    """

    def __init__(
        self,
        caller: Caller,
        usage: Usage,
        model_name: Callable[[str | None], str],
        max_images: Callable[[str], int],
        known: KnownWork,
    ) -> None:
        self.caller = caller
        self.key: RequestKey | None = None
        self.fingerprint = ""
        self._usage = usage
        self._model_name = model_name
        self._max_images = max_images
        self._known = known
        self._lease: Lease | None = None
        self._is_admitted = False
        self.deadline_s: float | None = None
        self.priority: Priority = "interactive"

    def read_headers(self, headers: Mapping[str, str]) -> None:
        """Take `X-Deadline-Ms`, `X-Priority` and `Idempotency-Key`, which every API has. Raises InvalidRequest."""
        deadline, priority = headers.get(DEADLINE_HEADER), headers.get(PRIORITY_HEADER)
        key = headers.get(IDEMPOTENCY_HEADER)
        if key is not None:
            self.key = RequestKey.of(self.caller.name, key)
        if deadline is not None:
            if not DEADLINE.fullmatch(deadline):
                raise InvalidRequest(DEADLINE_HEADER, deadline, "must be a whole number of milliseconds, 1 or more")
            self.deadline_s = int(deadline) / 1000
        if priority is not None:
            if priority not in get_args(Priority):
                raise UnknownName(PRIORITY_HEADER, priority, f"must be one of {', '.join(get_args(Priority))}")
            self.priority = "batch" if priority == "batch" else "interactive"

    def read_params(self, params: GenerationParams) -> None:
        """Take what the body says, where that is more than the headers say."""
        if params.deadline_ms is not None:
            self.deadline_s = params.deadline_ms / 1000
        if params.priority == "batch":
            self.priority = params.priority

    async def admit(self, model: str | None, images: int) -> None:
        """Count a request for `images` images of a model. Only the first call counts: it comes before costly work.

        A request that joins another one counts as a request, and its images not again.

        Raises:
            UnknownName: there is no such model, or the caller may not use it.
            InvalidRequest: the model, or this caller, may never be asked for so many images at once.
            LimitExceeded: a limit is reached now.
        """
        if self._is_admitted:
            return
        name = self._model_name(model)
        if self.caller.models is not None and name not in self.caller.models:
            raise UnknownName("model", name, f"must be one of {', '.join(self.caller.models)} for this key")
        check_range("num_images", images, 1, self._max_images(name))
        most = [limit for limit in (self.caller.max_images, self.caller.concurrency) if limit is not None]
        if most and images > min(most):
            raise InvalidRequest("num_images", images, f"must be at most {min(most)}, as this caller's limits say")
        if self.key is None:
            await self._hold(images)
        else:
            await self._hold_keyed(self.key, name, images)

    async def admit_work(self) -> None:
        """Count a request that draws no image, such as one that resizes: as a request, and as one image in flight.

        Raises:
            LimitExceeded: a limit is reached now.
        """
        await self._hold(1)

    def take_over(self) -> "Admission":
        """The place, for work that may go on without this request. Nothing is left here to be given back."""
        taken, self._lease = copy(self), None
        return taken

    async def end(self) -> None:
        """Give the place back. It may be called more than once."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._usage.end(lease)

    async def _hold_keyed(self, key: RequestKey, model: str, images: int) -> None:
        if self._known.is_known_here(key):
            return await self._hold(0)
        try:
            await self._hold(images)
        except LimitExceeded:
            if not await self._known.is_known(key, model, images):
                raise
            await self._hold(0)

    async def _hold(self, images: int) -> None:
        if self.caller.are_counted:
            limits = self.caller.limits
            lease = Lease(secrets.token_hex(16), self._usage.holder, self.caller.name, max(images, 0), limits)
            await self._usage.admit(lease)
            self._lease = lease
        self._is_admitted = True
