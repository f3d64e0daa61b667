"""Every request feature, in one batch of unlike rows, equals the diffusers pipeline that does the same alone.

Tolerance: 1 of 255 in float32 on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from serve_app.diffusion.new_scheduler import new_scheduler
from serve_app.diffusion.noise import vary
from serve_app.engine.engine import Engine
from serve_app.models.load_family import load_family
from serve_app.requests.params import HiresParams
from serve_app.requests.request import GenerationRequest
from tests.compare_images import load_pipeline, pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, half_mask, photo

TEXT = "txt2img"
KINDS: dict[tuple[bool, str], Any] = {
    (False, TEXT): StableDiffusionPipeline,
    (False, "img2img"): StableDiffusionImg2ImgPipeline,
    (False, "inpaint"): StableDiffusionInpaintPipeline,
    (True, TEXT): StableDiffusionXLPipeline,
    (True, "img2img"): StableDiffusionXLImg2ImgPipeline,
    (True, "inpaint"): StableDiffusionXLInpaintPipeline,
}


@dataclass
class Stock:
    """diffusers, future what a request asks for."""

    folder: Path
    scheduler_config: Any

    def pipe(self, kind: str, one: GenerationRequest) -> Any:
        base = load_pipeline(self.folder)
        pipeline = KINDS[isinstance(base, StableDiffusionXLPipeline), kind](**base.components)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = new_scheduler(self.scheduler_config, one.sampling.sampler, one.sampling.scheduler)
        return pipeline

    def draw(self, kind: str, one: GenerationRequest, pipeline: Any = None, **options: Any) -> Any:
        options = {"generator": torch.Generator().manual_seed(one.seed), **options}
        if kind != "img2img":
            options = {"width": one.width, "height": one.height, **options}
        return (pipeline or self.pipe(kind, one))(
            prompt=one.prompt,
            negative_prompt=one.sampling.negative_prompt or None,
            num_inference_steps=one.sampling.num_inference_steps,
            guidance_scale=one.sampling.guidance_scale,
            **options,
        ).images[0]


Reference = Callable[[Stock, GenerationRequest], Any]
Case = tuple[dict[str, Any], Reference]


def img2img(sampler: str, steps: int, strength: float) -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        return stock.draw("img2img", one, image=photo(), strength=strength)

    return {"sampler": sampler, "num_inference_steps": steps, "strength": strength, "image": as_file(photo())}, draw


def inpaint(sampler: str, steps: int, strength: float) -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        return stock.draw("inpaint", one, image=photo(), mask_image=half_mask(), strength=strength)

    sent = {"image": as_file(photo()), "mask": as_file(half_mask())}
    return {"sampler": sampler, "num_inference_steps": steps, "strength": strength, **sent}, draw


def hires() -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        first = stock.draw(TEXT, one)
        return stock.draw("img2img", one, image=first.resize((96, 96), Image.Resampling.LANCZOS), strength=0.6)

    return {"sampler": "euler", "num_inference_steps": 5, "hires": HiresParams(scale=1.5, strength=0.6)}, draw


def latent_hires() -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        latents = torch.as_tensor(stock.draw(TEXT, one, output_type="latent"))[None]
        larger = torch.nn.functional.interpolate(latents, size=(12, 12), mode="bilinear", antialias=False)
        return stock.draw("img2img", one, image=larger, strength=0.6)

    params = HiresParams(scale=1.5, strength=0.6, upscaler="latent")
    return {"sampler": "dpmpp_2m", "num_inference_steps": 5, "hires": params}, draw


def rescaled() -> Case:
    return {"sampler": "ddim", "guidance_rescale": 0.7}, lambda stock, one: stock.draw(TEXT, one, guidance_rescale=0.7)


def interval() -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        def switch(pipeline: Any, index: int, _: Any, given: dict[str, Any]) -> dict[str, Any]:
            if index == 1:
                pipeline._guidance_scale = 1.0  # diffusers documents no other way
                given = {name: tensor[-1:] for name, tensor in given.items()}
            return given

        names = ["prompt_embeds"]
        if isinstance(load_pipeline(stock.folder), StableDiffusionXLPipeline):
            names += ["add_text_embeds", "add_time_ids"]
        return stock.draw(TEXT, one, callback_on_step_end=switch, callback_on_step_end_tensor_inputs=names)

    return {"sampler": "dpmpp_2m", "num_inference_steps": 4, "guidance_end": 0.5}, draw


def subseed() -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        noise = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (one.seed, 99)]
        return stock.draw(TEXT, one, latents=vary(noise[0][0], noise[1][0], 0.3)[None])

    return {"sampler": "euler", "subseed": 99, "subseed_strength": 0.3}, draw


def clip_skip() -> Case:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        pipeline = stock.pipe(TEXT, one)
        if isinstance(pipeline, StableDiffusionPipeline):
            # diffusers looks for the layer norm where transformers 4 had it.
            vars(pipeline.text_encoder)["text_model"] = pipeline.text_encoder
        return stock.draw(TEXT, one, pipeline, clip_skip=1)

    return {"sampler": "ddim", "clip_skip": 1}, draw


def turbo() -> Case:
    """As SD-Turbo and SDXL-Turbo are asked: one step, no guidance, trailing timesteps."""
    params = {"sampler": "euler_a", "scheduler": "sgm_uniform", "num_inference_steps": 1, "guidance_scale": 1.0}
    return params, lambda stock, one: stock.draw(TEXT, one)


CASES: list[Case] = [
    turbo(),
    img2img("euler", 5, 0.6),
    img2img("dpmpp_2m", 8, 0.5),
    img2img("heun", 4, 0.8),
    img2img("pndm", 6, 0.7),
    img2img("euler_a", 5, 1.0),
    img2img("dpmpp_3m_sde", 9, 0.4),
    inpaint("ddim", 5, 0.6),
    inpaint("euler_a", 4, 1.0),
    inpaint("dpmpp_2m", 6, 0.8),
    inpaint("dpm2", 4, 1.0),
    hires(),
    latent_hires(),
    rescaled(),
    interval(),
    subseed(),
    clip_skip(),
]


def check_together(folder: Path, cases: list[Case], **config_options: Any) -> None:
    """All in one engine at once, each against its reference alone."""
    config = tiny_config(folder).model_copy(update=config_options)
    with Engine(load_family(config), config) as engine:
        stock = Stock(folder, engine.family.scheduler_config)
        requests = [
            request(engine, f"picture {index}", seed=index, negative_prompt="dog" * (index % 2), **params)
            for index, (params, _) in enumerate(cases)
        ]
        images = [future.result(120) for future in [engine.submit(one) for one in requests]]
    for (_, reference), one, image in zip(cases, requests, images, strict=True):
        theirs = np.asarray(reference(stock, one)).astype(int)
        assert np.abs(pixels(image) - theirs).max() <= 1, one
        assert theirs.std() > 10, "an image, not a flat colour"


@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sd_v", "tiny_sdxl"])
def test_unlike_features_share_a_batch_and_draw_what_the_stock_pipelines_draw(
    family: str, request: pytest.FixtureRequest
) -> None:
    check_together(request.getfixturevalue(family), CASES)


@pytest.mark.parametrize("family", ["tiny_inpaint", "tiny_sdxl_inpaint"])
def test_inpainting_unets_draw_what_the_stock_pipeline_draws(family: str, request: pytest.FixtureRequest) -> None:
    check_together(
        request.getfixturevalue(family),
        [inpaint("ddim", 5, 0.6), inpaint("euler_a", 4, 1.0), inpaint("dpmpp_2m", 6, 0.8), inpaint("heun", 3, 1.0)],
    )


def test_an_inpainting_unet_draws_from_text_alone_as_over_a_grey_image(tiny_inpaint: Path) -> None:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        grey, white = Image.new("RGB", (64, 64), (128, 128, 128)), Image.new("L", (64, 64), 255)
        return stock.draw("inpaint", one, image=grey, mask_image=white, strength=1.0)

    check_together(tiny_inpaint, [({"sampler": "ddim"}, draw), inpaint("ddim", 5, 0.6)])


def test_a_distilled_unet_takes_the_guidance_scale_as_an_input(tiny_lcm: Path) -> None:
    def draw(stock: Stock, one: GenerationRequest) -> Any:
        return stock.draw(TEXT, one)

    cases: list[Case] = [({"sampler": "lcm", "guidance_scale": scale}, draw) for scale in (1.5, 8.0)]
    check_together(tiny_lcm, [*cases, img2img("lcm", 4, 0.5)])
