"""Which ingress replica works for an idempotency key, where several have it. Pure: asking is done elsewhere.

Each ingress replica first claims a key, state `asking`, and then asks all others. So of two that begin at the same
moment at least one sees the other's claim. Of two that are asking, the one with the lower name works; it waits until
the other has decided, who may have asked before the lower one's claim was there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serve_app.errors import DarkroomError
from serve_app.requests.events import Progress, Queued

ClaimState = Literal["asking", "drawing", "following", "done", "failed"]


@dataclass(frozen=True)
class KeyClaim:
    """What an ingress replica says of a key: how far it is, for which request.

    `ingress` is its name. `latest` is how far each image is that is not finished. `error` is why the request failed.
    """

    ingress: str
    fingerprint: str
    state: ClaimState
    latest: tuple[tuple[int, Queued | Progress], ...] = ()
    error: DarkroomError | None = None


@dataclass(frozen=True)
class Choice:
    """What to do with a key: follow `peer`, else ask again where one `is_open`, else draw."""

    peer: str | None = None
    is_open: bool = False


def choose(ingress: str, claims: Mapping[str, KeyClaim]) -> Choice:
    """Who works. `claims` are the others', by the name under which each can be asked; `ingress` itself is asking."""
    for state in ("done", "drawing"):
        for peer, claim in claims.items():
            if claim.state == state:
                return Choice(peer)
    asking = {claim.ingress: peer for peer, claim in claims.items() if claim.state == "asking"}
    lowest = min(asking, default=ingress)
    return Choice(asking[lowest]) if lowest < ingress else Choice(is_open=bool(asking))
