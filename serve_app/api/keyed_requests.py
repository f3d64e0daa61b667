"""`KeyedRequests`: requests with an `Idempotency-Key`. A retry joins the work, or gets the result that is kept."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from serve_app.api.kept_results import KeptResults
from serve_app.api.key_claims import KeyClaim, choose
from serve_app.api.key_peers import KeyPeers
from serve_app.api.keyed_work import FOLLOWED_SECONDS, KeyedWork
from serve_app.api.stream_buffer import NumberedEvent, StreamBuffer
from serve_app.api.usage import Admission
from serve_app.config import IdempotencyConfig
from serve_app.requests.events import GeneratedImage, Progress, Queued
from serve_app.requests.idempotency import RequestKey, image_keys

POLL_SECONDS = 0.25
"""How often another ingress replica is asked how far its work is."""
AGAIN_SECONDS = 0.01
DECIDE_SECONDS = 2.0
"""How long another ingress replica may be undecided. After that the image is drawn here, too."""
MOVES = 5
"""How often the work of another ingress replica may be lost before it is done here."""
MISSES = 2
"""An ingress replica that does not answer so often in a row is not waited for."""

Draw = Callable[[Admission], AsyncGenerator[NumberedEvent, None]]


class KeyedRequests:
    """All requests with a key at this ingress replica: their work, and results. It outlives the HTTP application.

    Args:
        peers: who else may know a key.
        config: how long results are kept, and how many.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        peers: KeyPeers,
        config: IdempotencyConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.peers = peers
        self._clock = clock
        self._kept = KeptResults(config or IdempotencyConfig(), clock)
        self._works: dict[str, KeyedWork] = {}
        self._ended: dict[str, KeyedWork] = {}

    def use(self, config: IdempotencyConfig) -> None:
        """Keep results by these limits. Those that are kept are forgotten: other settings may hold now."""
        self._kept.use(config)

    def is_known_here(self, key: RequestKey) -> bool:
        """See `KnownWork`."""
        return key.digest in self._works or self._kept.get(key.digest) is not None

    async def is_known(self, key: RequestKey, model: str, images: int) -> bool:
        """See `KnownWork`."""
        if self.is_known_here(key) or await self.peers.ask(key.digest):
            return True
        return bool(await self.peers.find_running(model, image_keys(key.digest, images)))

    def check(self, key: RequestKey, fingerprint: str) -> None:
        """Refuse another request under a key in use here. Raises InvalidIdempotencyKey."""
        known = self._works.get(key.digest) or self._kept.get(key.digest)
        if known is not None and known.fingerprint != fingerprint:
            raise key.reused()

    async def read(
        self, key: RequestKey, admission: Admission, draw: Draw, buffer: StreamBuffer
    ) -> AsyncGenerator[NumberedEvent, None]:
        """The events of a request, from now on, and all its images. The work ends when all callers have left.

        Args:
            key: the request's.
            admission: the caller's, with the request's fingerprint. Work that begins with this caller takes it over.
            draw: draws the images within an admission.
            buffer: holds what the caller has not read.

        Raises:
            InvalidIdempotencyKey: another request has this key.
        """
        self.check(key, admission.fingerprint)
        kept = self._kept.get(key.digest)
        if kept is not None:
            for index, image in enumerate(kept.images):
                yield index, image
            return
        work = self._works.get(key.digest)
        if work is None:
            work = KeyedWork(key, admission.take_over(), self._end, self._clock)
            self._works[key.digest] = work
            work.start(self._find_or_draw(work, draw))
        async with aclosing(work.read(buffer)) as events:
            async for event in events:
                yield event

    def claim_of(self, digest: str, follows: bool) -> KeyClaim | None:
        """What other ingress replicas hear of a key. `follows`: a caller waits there. Any thread may call it."""
        work = self._works.get(digest) or self._ended.get(digest)
        if work is not None:
            if follows:
                work.follow()
            return work.claim(self.peers.ingress)
        kept = self._kept.get(digest)
        return KeyClaim(self.peers.ingress, kept.fingerprint, "done") if kept is not None else None

    def images_of(self, digest: str) -> tuple[GeneratedImage, ...]:
        """The images of a key whose work is done here. Any thread may call it."""
        kept = self._kept.get(digest)
        if kept is not None:
            return kept.images
        work = self._works.get(digest) or self._ended.get(digest)
        return in_order(work.images) if work is not None and work.state == "done" else ()

    async def _find_or_draw(self, work: KeyedWork, draw: Draw) -> AsyncGenerator[NumberedEvent, None]:
        for _ in range(MOVES):
            work.state = "asking"
            peer = await self._find_peer(work)
            if peer is None:
                break
            work.state = "following"
            async with aclosing(self._follow(work, peer)) as followed:
                async for event in followed:
                    yield event
            if work.images:
                return
        work.state = "drawing"
        async with aclosing(draw(work.admission)) as events:
            async for event in events:
                yield event
        self._kept.keep(work.key.digest, work.admission.caller.name, work.fingerprint, in_order(work.images))
        asyncio.get_running_loop().call_later(self._kept.max_age_s + 0.01, self._kept.expire)

    async def _find_peer(self, work: KeyedWork) -> str | None:
        """Who works for the key or has its result; None where this ingress replica is to draw."""
        until = self._clock() + DECIDE_SECONDS
        while self._clock() < until:
            claims = await self.peers.ask(work.key.digest)
            choice = choose(self.peers.ingress, claims)
            if choice.peer is not None and claims[choice.peer].fingerprint != work.fingerprint:
                raise work.key.reused()
            if choice.peer is not None or not choice.is_open:
                return choice.peer
            await asyncio.sleep(AGAIN_SECONDS)
        return None

    async def _follow(self, work: KeyedWork, peer: str) -> AsyncGenerator[NumberedEvent, None]:
        """The events of another ingress replica's work. They end without an image where the work is lost."""
        told: dict[int, Queued | Progress] = {}
        while True:
            claim = await self._poll(work, peer)
            if claim is None:
                return
            if claim.state == "done":
                for index, image in enumerate(await self.peers.fetch(peer, work.key.digest)):
                    yield index, image
                return
            for index, event in claim.latest:
                if told.get(index) != event:
                    told[index] = event
                    yield index, event
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(self, work: KeyedWork, peer: str) -> KeyClaim | None:
        """How far another ingress replica's work is; None where it is lost. Raises what the work has raised."""
        for _ in range(MISSES):
            try:
                claim = await self.peers.poll(peer, work.key.digest)
            except TimeoutError:
                continue
            if claim is not None and claim.error is not None:
                raise claim.error
            return None if claim is None or claim.state in ("following", "failed") else claim
        return None

    def _end(self, work: KeyedWork) -> None:
        if self._works.get(work.key.digest) is not work:
            return
        if work.is_followed:
            self._ended[work.key.digest] = work
            asyncio.get_running_loop().call_later(FOLLOWED_SECONDS, self._forget, work)
        del self._works[work.key.digest]

    def _forget(self, work: KeyedWork) -> None:
        if self._ended.get(work.key.digest) is work:
            del self._ended[work.key.digest]


def in_order(images: Mapping[int, GeneratedImage]) -> tuple[GeneratedImage, ...]:
    """The images by their index."""
    return tuple(images[index] for index in sorted(images))
