"""Results that are kept for retries: bounded in age and bytes, and nobody's by another's fault."""

from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.kept_results import KeptResults
from serve_app.config import IdempotencyConfig
from serve_app.requests.events import GeneratedImage, Timings

MB = 2**20
CONFIG = IdempotencyConfig(max_mb=3, max_mb_per_caller=2, max_age_s=100)


class Kept:
    """Results, and their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.results = KeptResults(CONFIG, lambda: self.now)

    def keep(self, key: str, owner: str = "me", megabytes: float = 0.9) -> None:
        image = GeneratedImage(b"x" * int(megabytes * MB), "png", 8, 8, 0, Timings())
        self.results.keep(key, owner, "fingerprint", (image,))

    def found(self, keys: str) -> str:
        return "".join(key for key in keys if self.results.get(key) is not None)


def test_a_callers_oldest_go_first_then_the_oldest_of_all() -> None:
    kept = Kept()
    for key in "123":
        kept.keep(key)
    assert kept.found("123") == "23", "two megabytes for each caller"
    kept.keep("4", "you")
    kept.keep("5", "you", 1.0)
    assert kept.found("12345") == "345", "three for all"


def test_a_result_is_gone_after_its_time_also_from_memory() -> None:
    kept = Kept()
    kept.keep("1")
    kept.now = 60
    kept.keep("2")
    kept.now = 101
    assert kept.found("12") == "2"
    kept.results.expire()
    assert kept.results.size == int(0.9 * MB)


def test_a_result_over_the_limit_is_not_kept_and_costs_nobody_anything() -> None:
    kept = Kept()
    kept.keep("1")
    kept.keep("2", megabytes=2.1)
    assert kept.found("12") == "1"


def test_other_limits_begin_with_nothing_kept() -> None:
    kept = Kept()
    kept.keep("1")
    kept.results.use(CONFIG)
    assert (kept.found("1"), kept.results.size) == ("", 0)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["me", "you"]), st.floats(0.01, 3), st.floats(0, 60)))
)
def test_the_limits_hold_whatever_is_kept(steps: list[tuple[str, str, float, float]]) -> None:
    kept = Kept()
    for key, owner, megabytes, seconds in steps:
        kept.now += seconds
        kept.keep(key, owner, megabytes)
        found = [result for key in "abcdef" if (result := kept.results.get(key)) is not None]
        assert kept.results.size <= 3 * MB
        for one in ("me", "you"):
            assert sum(result.size for result in found if result.owner == one) <= 2 * MB
        assert all(kept.now - result.kept_at <= 100 for result in found)
