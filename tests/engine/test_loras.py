"""LoRAs by row: unlike rows share the batch, each equals diffusers with PEFT, the others are left as they were."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from serve_app.config import ModelConfig
from serve_app.engine.engine import Engine
from serve_app.errors import ModelLoadError, UnknownName
from serve_app.models.load_family import load_family
from serve_app.models.lora.lora_layers import Lora
from serve_app.models.lora.lora_store import LoraStore
from serve_app.requests.request import GenerationRequest, LoraWeight
from tests.compare_images import difference, draw_with_pipeline, load_pipeline, pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request
from tests.models.lora_files import save_lora

MIXES: list[dict[str, Any]] = [
    {},
    {"loras": (LoraWeight(name="a"),)},
    {"loras": (LoraWeight(name="a", weight=0.5), LoraWeight(name="b", weight=-0.7))},
    {"prompt": "a cat <lora:b:0.8>"},
    {"loras": (LoraWeight(name="b"),), "guidance_scale": 1.0},
]


def with_loras(model: Path, folder: Path, layout: str, **options: Any) -> ModelConfig:
    files = {
        name: str(save_lora(model, folder / f"{name}.safetensors", seed, layout)) for seed, name in enumerate("ab")
    }
    return tiny_config(model).model_copy(update={"loras": files, **options})


def draw_with_peft(config: ModelConfig, scheduler_config: Any, one: GenerationRequest) -> np.ndarray:
    pipeline = load_pipeline(Path(config.source))
    for name in {lora.name for lora in one.loras}:
        pipeline.load_lora_weights(config.loras[name], adapter_name=name)
    if one.loras:
        pipeline.set_adapters([lora.name for lora in one.loras], [lora.weight for lora in one.loras])
    return draw_with_pipeline(pipeline, scheduler_config, one)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sdxl"])
def test_unlike_loras_share_a_batch_and_draw_what_peft_draws(
    family: str, layout: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = with_loras(request.getfixturevalue(family), tmp_path, layout)
    with Engine(load_family(config), config) as engine:
        requests = [mixed(engine, seed, mix) for seed, mix in enumerate(MIXES)]
        plain = engine.submit(requests[0]).result(30)
        together = [future.result(60) for future in [engine.submit(one) for one in requests]]
        for one, image in zip(requests, together, strict=True):
            theirs = draw_with_peft(config, engine.family.scheduler_config, one)
            assert np.abs(pixels(image) - theirs).max() <= 1, one.loras
        unadapted = engine.submit(mixed(engine, 1, {})).result(30)
    assert difference(plain, together[0]) <= 1, "a row without LoRA is as it is alone"
    assert difference(unadapted, together[1]) > 10, "and a LoRA does something"


def mixed(engine: Engine, seed: int, mix: dict[str, Any]) -> GenerationRequest:
    return request(engine, **{"prompt": "a cat", "negative_prompt": "dog", "seed": seed, **mix})


def test_a_cache_that_is_too_small_reads_again_and_draws_the_same(tiny_sd: Path, tmp_path: Path) -> None:
    config = with_loras(tiny_sd, tmp_path, "diffusers")
    roomy: Any = load_family(config)
    reads: list[str] = []

    def read(name: str) -> Lora:
        reads.append(name)
        return replace(roomy.loras.get(name))

    tight = replace(roomy, loras=LoraStore(read, ["a", "b"], max_bytes=1))
    files: list[list[bytes]] = []
    for family in (roomy, tight):
        with Engine(family, config) as engine:
            requests = [mixed(engine, 0, mix) for mix in MIXES]
            files.append([engine.submit(one).result(30).content for one in requests])
    assert files[0] == files[1]
    assert len(reads) > 2, "each was read at start, and some again"


def test_an_unknown_lora_is_refused_by_name(tiny_sd: Path, tmp_path: Path) -> None:
    config = with_loras(tiny_sd, tmp_path, "diffusers")
    with pytest.raises(UnknownName, match="loras: must be one of a, b, got 'c'"):
        request(config, "x <lora:c:1>")
    with pytest.raises(UnknownName, match="none is configured"):
        request(tiny_config(tiny_sd), "x", loras=(LoraWeight(name="a"),))


def refusal(model: Path, file: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_family(tiny_config(model).model_copy(update={"loras": {"mine": str(file)}}))
    return str(caught.value)


def test_a_lora_that_does_not_fit_is_refused_at_start(tiny_sd: Path, tiny_sdxl: Path, tmp_path: Path) -> None:
    assert "loras.mine: /no/such.safetensors does not exist" in refusal(tiny_sd, Path("/no/such.safetensors"))
    foreign = save_lora(tiny_sdxl, tmp_path / "xl.safetensors", 0, "diffusers")
    assert "loras.mine" in refusal(tiny_sd, foreign)
    assert "does not fit this model at" in refusal(tiny_sd, foreign)
    odd = tmp_path / "odd.safetensors"
    save_file({**load_file(foreign), "unet.x.hada_w1": load_file(foreign).popitem()[1]}, odd)
    assert "must hold low-rank updates (lora_A and lora_B) only, and it holds " in refusal(tiny_sd, odd)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(foreign.read_bytes()[:999])
    assert "cannot be read as a LoRA" in refusal(tiny_sd, cut)
