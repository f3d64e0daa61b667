"""Of several ingress replicas that get one key, one draws: simulated, with every call in every order."""

import random
from collections.abc import Generator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.key_claims import Choice, ClaimState, KeyClaim, choose


def claim(ingress: str, state: ClaimState) -> KeyClaim:
    return KeyClaim(ingress, "fingerprint", state)


def test_who_has_the_result_goes_before_who_draws_before_who_asks() -> None:
    assert choose("b", {}) == Choice()
    claims = {"1": claim("a", "asking"), "2": claim("c", "drawing"), "3": claim("d", "done")}
    assert choose("b", claims) == Choice("3")
    del claims["3"]
    assert choose("b", claims) == Choice("2")
    del claims["2"]
    assert choose("b", claims) == Choice("1"), "the lower name"
    assert choose("b", {"1": claim("c", "asking")}) == Choice(is_open=True), "it may have asked before this one began"
    assert choose("b", {"1": claim("c", "following"), "2": claim("a", "failed")}) == Choice()


@dataclass
class Ingress:
    """One ingress replica: it claims, asks the others one by one, and decides."""

    name: str
    state: ClaimState | None = None
    peer: str | None = None
    others: "list[Ingress]" = field(default_factory=list)

    def run(self) -> Generator[None]:
        """Every `yield` lets others do something."""
        self.state = "asking"
        while True:
            yield
            claims = {}
            for other in random.sample(self.others, len(self.others)):
                if other.state is not None:
                    claims[other.name] = claim(other.name, other.state)
                yield
            choice = choose(self.name, claims)
            if choice.peer is not None:
                self.state, self.peer = "following", choice.peer
                (followed,) = [one for one in self.others if one.name == choice.peer]
                while followed.state in ("asking", "drawing"):
                    yield
                self.state = "asking"
            elif not choice.is_open:
                self.state = "drawing"
                return


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_one_draws_whatever_happens_first(count: int, seed: int) -> None:
    random.seed(seed)
    everyone = [Ingress(name) for name in "abcde"[:count]]
    for one in everyone:
        one.others = [other for other in everyone if other is not one]
    running = {one.name: one.run() for one in everyone}
    for _ in range(2000):
        if not running:
            break
        name = random.choice(sorted(running))
        if next(running[name], "ended") == "ended":
            del running[name]
    drawing = [one.name for one in everyone if one.state == "drawing"]
    assert len(drawing) == 1, drawing
    assert {one.peer for one in everyone if one.state == "following"} <= set(drawing)
