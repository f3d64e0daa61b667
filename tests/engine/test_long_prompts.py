"""A long prompt is bounded, is split into tokens at submission, and costs its neighbours little."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine.engine import Engine
from serve_app.engine.prompt_cache import PromptCache
from serve_app.errors import InvalidRequest
from serve_app.models.load_family import load_family
from serve_app.models.model_family import Conditioning, Prompt, TokenizedPrompt
from serve_app.requests.params import GenerationParams
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.tiny_requests import request

BREAKS = "a " + "BREAK a " * 7
"""Eight chunks."""


def tokens(batch: Any) -> list[int]:
    return [one.num_tokens for one in batch.conditioning]


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_of_too_many_chunks_is_refused_before_it_is_encoded(spied: tuple[Engine, Spied], field: str) -> None:
    engine, family = spied
    texts = {"prompt": "a cat", field: "BREAK " * 333}
    with pytest.raises(InvalidRequest, match="must have at most 8 chunks of tokens, and has 334") as refused:
        engine.submit(request(engine, **texts))
    assert refused.value.field == field
    assert not family.encoded


def test_the_limit_on_chunks_is_the_models(engine: Engine) -> None:
    limits = engine.capabilities.limits.model_copy(update={"max_prompt_chunks": 1})
    engine.capabilities = engine.capabilities.model_copy(update={"limits": limits})
    with pytest.raises(InvalidRequest, match="must have at most 1 chunks"):
        engine.generate(GenerationParams(prompt="one BREAK two"))


def test_prompts_are_split_into_tokens_by_whoever_submits(tiny_sd: Path) -> None:
    class Watched(Spied):
        threads: list[str] = []

        def tokenize(self, prompt: Prompt) -> TokenizedPrompt:
            self.threads.append(threading.current_thread().name)
            return self._family.tokenize(prompt)

    config = tiny_config(tiny_sd)
    family: Any = Watched(load_family(config))
    with Engine(family, config) as engine:
        engine.submit(request(engine, BREAKS)).result(30)
    assert len(family.threads) > 2
    assert "denoise" not in family.threads


def test_short_prompts_are_not_padded_to_a_long_one(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    futures = [engine.submit(request(engine, "short"))]
    assert reached.wait(30)
    futures += [engine.submit(request(engine, prompt)) for prompt in ("brief", BREAKS, "one BREAK two")]
    go.set()
    for future in futures:
        future.result(60)
    seen = [sorted(tokens(batch)) for batch in family.batches]
    assert [77, 616] in seen, "the negative prompt of a long one is short"
    assert [77] * 5 + [154] in seen, "two chunks ride with one"
    assert all(one == [77, 616] for one in seen if 616 in one)


def test_deterministic_mode_is_bit_identical_whatever_the_neighbours_lengths(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, deterministic=True, bucket_rows=3)
    prompts = [("short", ""), ("one BREAK two", ""), ("brief", "x BREAK y"), (BREAKS, ""), ("a BREAK b", "c BREAK d")]
    with Engine(load_family(config), config) as engine:
        requests = [
            request(engine, prompt, negative_prompt=negative, seed=index, num_inference_steps=3 + index)
            for index, (prompt, negative) in enumerate(prompts * 2)
        ]
        requests.append(request(engine, "one BREAK two", guidance_scale=1.0))
        alone = [engine.submit(one).result(60).content for one in requests]
        futures = [engine.submit(one) for one in requests]
        together = [future.result(60).content for future in futures]
    assert alone == together


class CountedFamily:
    """Encodes every prompt as one tensor of a kilobyte, all views of one."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, prompts: list[TokenizedPrompt]) -> list[Conditioning]:
        self.encoded += [one.prompt.text for one in prompts]
        states = torch.zeros(len(prompts), 4, 64)
        return [Conditioning(prompt_embeds=row, loras=one.loras) for row, one in zip(states, prompts, strict=True)]


def tokenized(text: str, loras: Any = ()) -> TokenizedPrompt:
    return TokenizedPrompt(prompt=Prompt(text=text), chunks=([],), loras=loras)


def test_the_prompt_cache_is_bounded_in_bytes() -> None:
    family: Any = CountedFamily()
    cache = PromptCache(family, batch=8, max_bytes=3000)
    cache.encode([tokenized("a"), tokenized("b"), tokenized("c")])
    assert cache.num_bytes == 2048
    cache.encode([tokenized("b")])
    cache.encode([tokenized("a")])
    assert family.encoded == ["a", "b", "c", "a"], "the first was dropped, the second kept"
    assert cache.encode([tokenized("x"), tokenized("y"), tokenized("z")]).keys() == {
        Prompt(text=text) for text in "xyz"
    }, "also what does not fit"


def test_the_prompt_cache_keeps_neither_loras_nor_the_rest_of_a_batch() -> None:
    family: Any = CountedFamily()
    cache = PromptCache(family, batch=8, max_bytes=10_000)
    cache.encode([tokenized("a", ("one",)), tokenized("b")])
    (again,) = cache.encode([tokenized("a", ("another",))]).values()
    assert again.loras == ("another",)
    assert again.prompt_embeds.untyped_storage().nbytes() == 1024
