"""What requests with an `Idempotency-Key` need of the other ingress replicas, and of the models' replicas."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from serve_app.api.key_claims import KeyClaim
from serve_app.requests.events import GeneratedImage


class KeyPeers(Protocol):
    """The other ingress replicas, and the models' replicas. No call takes longer than a few seconds."""

    @property
    def ingress(self) -> str:
        """The name of this ingress replica, which no other one has."""
        ...

    async def ask(self, digest: str) -> Mapping[str, KeyClaim]:
        """What each other ingress replica says of a key, by the name to ask it again. Who knows nothing is left out."""
        ...

    async def poll(self, peer: str, digest: str) -> KeyClaim | None:
        """How far the work of one is, on which a caller here waits; None where it is lost. Raises TimeoutError."""
        ...

    async def fetch(self, peer: str, digest: str) -> Sequence[GeneratedImage]:
        """The images of one whose work is done; none where they are lost."""
        ...

    async def find_running(self, model: str, keys: Sequence[str]) -> Mapping[str, str]:
        """Which of these images run in a replica of the model, though no ingress replica works for them.

        Image keys with the unique id of the replica.
        """
        ...


class NoPeers:
    """`KeyPeers` of an ingress that is alone, over a service without replicas."""

    ingress = "alone"

    async def ask(self, digest: str) -> Mapping[str, KeyClaim]:
        """See `KeyPeers`."""
        return {}

    async def poll(self, peer: str, digest: str) -> KeyClaim | None:
        """See `KeyPeers`."""
        return None

    async def fetch(self, peer: str, digest: str) -> Sequence[GeneratedImage]:
        """See `KeyPeers`."""
        return ()

    async def find_running(self, model: str, keys: Sequence[str]) -> Mapping[str, str]:
        """See `KeyPeers`."""
        return {}
