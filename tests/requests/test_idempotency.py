"""Which requests are one request that was sent again, and which seed it draws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import InvalidIdempotencyKey
from serve_app.requests.idempotency import RequestKey, fingerprint_of, with_seeds
from serve_app.requests.params import GenerationParams, LoraWeight
from serve_app.requests.resolve import MAX_SEED

KEY = RequestKey.of("me", "k")


@given(st.text(min_size=1, max_size=300))
def test_a_key_is_visible_ascii_of_at_most_255_characters(text: str) -> None:
    if len(text) <= 255 and all("!" <= char <= "~" for char in text):
        assert RequestKey.of("me", text).text == text
    else:
        with pytest.raises(InvalidIdempotencyKey, match="Idempotency-Key: must be 1 to 255 visible ASCII characters"):
            RequestKey.of("me", text)


@given(st.tuples(st.text(), st.from_regex(r"[!-~]{1,20}", fullmatch=True)), st.data())
def test_keys_of_two_owners_never_meet(first: tuple[str, str], data: st.DataObject) -> None:
    second = data.draw(st.tuples(st.text(), st.from_regex(r"[!-~]{1,20}", fullmatch=True)))
    assert (RequestKey.of(*first).digest == RequestKey.of(*second).digest) == (first == second)


def test_a_seed_that_is_not_given_follows_from_the_key() -> None:
    params = GenerationParams(prompt="x", subseed_strength=0.1)
    seeds = with_seeds(params, KEY)
    assert with_seeds(params, RequestKey.of("me", "k")) == seeds
    assert None not in (seeds.seed, seeds.subseed)
    assert seeds.seed != seeds.subseed
    assert with_seeds(params, RequestKey.of("me", "other")).seed != seeds.seed
    assert with_seeds(params, RequestKey.of("you", "k")).seed != seeds.seed
    assert with_seeds(GenerationParams(prompt="x", seed=5), KEY).seed == 5


@given(st.from_regex(r"[!-~]{1,255}", fullmatch=True))
def test_such_a_seed_leaves_room_for_further_images(text: str) -> None:
    seed = with_seeds(GenerationParams(), RequestKey.of("me", text)).seed
    assert seed is not None
    assert 0 <= seed <= MAX_SEED - 1000


def test_a_retry_has_the_same_fingerprint_and_another_payload_has_not() -> None:
    first = GenerationParams(prompt="x", guidance_scale=7.5, image=b"one", loras=[LoraWeight(name="a")])
    fingerprint = fingerprint_of(first, "m")
    assert fingerprint_of(first.model_copy(), "m") == fingerprint
    assert fingerprint_of(first, "other") != fingerprint
    for change in (
        {"prompt": "y"},
        {"image": b"two"},
        {"image": None},
        {"mask": b"one"},
        {"seed": 1},
        {"num_images": 2},
        {"loras": [LoraWeight(name="a", weight=0.5)]},
        {"output_format": "jpeg"},
    ):
        assert fingerprint_of(first.model_copy(update=change), "m") != fingerprint, change
    for change in ({"priority": "batch"}, {"deadline_ms": 5000}):
        assert fingerprint_of(first.model_copy(update=change), "m") == fingerprint, change


def test_the_declared_default_that_is_given_is_not_what_the_model_has_by_default() -> None:
    assert fingerprint_of(GenerationParams(guidance_scale=7.5), "m") != fingerprint_of(GenerationParams(), "m")
