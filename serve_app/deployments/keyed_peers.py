"""`KeyedPeers`: `KeyPeers` over Ray."""

from collections.abc import Mapping, Sequence

from ray.exceptions import RayError

from serve_app.api.key_claims import KeyClaim
from serve_app.deployments.peers import Peers
from serve_app.deployments.queues import ModelQueue
from serve_app.requests.events import GeneratedImage

FETCH_SECONDS = 5.0
"""Images are several megabytes."""


class KeyedPeers:
    """See `KeyPeers`. The other ingress replicas answer with `claim_of` and `images_of`.

    Args:
        ingress: the name of this ingress replica.
        peers: the other ingress replicas.
        queues: the queue of each model.
    """

    def __init__(self, ingress: str, peers: Peers, queues: Mapping[str, ModelQueue]) -> None:
        self.ingress = ingress
        self._peers = peers
        self._queues = queues

    async def ask(self, digest: str) -> Mapping[str, KeyClaim]:
        """See `KeyPeers`. Who does not answer is left out."""
        claims = await self._peers.ask_each("claim_of", digest, False)
        return {peer: claim for peer, claim in claims.items() if claim is not None}

    async def poll(self, peer: str, digest: str) -> KeyClaim | None:
        """See `KeyPeers`."""
        try:
            return await self._peers.ask_one(peer, "claim_of", digest, True)
        except (RayError, ValueError):
            return None

    async def fetch(self, peer: str, digest: str) -> Sequence[GeneratedImage]:
        """See `KeyPeers`."""
        try:
            return await self._peers.ask_one(peer, "images_of", digest, timeout_s=FETCH_SECONDS)
        except (RayError, ValueError, TimeoutError):
            return ()

    async def find_running(self, model: str, keys: Sequence[str]) -> Mapping[str, str]:
        """See `KeyPeers`. Who does not answer is left out."""
        found = await self._queues[model].fleet.ask_each("find_images", keys)
        return {key: name for name, answer in found.items() for key in answer}
