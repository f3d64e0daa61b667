"""A GPU's numbers, on full-size shapes with random weights: nothing is downloaded.

Rows a second and milliseconds a step at 1 .. 16 UNet rows, eager and compiled, with the share of the GPU's peak; then
images a second of the engine against the stock pipeline, alone and in static batches.

    python benchmarks/gpu.py [--model stable-diffusion|stable-diffusion-xl] [--peak-tflops 989] [--compile]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from serve_app.config import EngineConfig, ModelConfig
from serve_app.engine.engine import Engine
from serve_app.models.load_family import load_family
from serve_app.models.loading.single_file import LAYOUTS, clip_tokenizer
from serve_app.models.model_family import DenoisingBatch, ModelFamily, Prompt
from serve_app.requests.params import GenerationParams
from serve_app.requests.resolve import resolve

TFLOP_PER_ROW = {"stable-diffusion": 0.80, "stable-diffusion-2": 2.15, "stable-diffusion-xl": 6.76}
NATIVE_SIZE = {"stable-diffusion": 512, "stable-diffusion-2": 768, "stable-diffusion-xl": 1024}
ROWS = (1, 2, 4, 8, 16)


def save_random(layout: str, folder: Path) -> None:
    """A diffusers directory of the published shapes, with random fp16 weights."""
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    texts = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    parts: dict[str, Any] = {}
    for path in sorted((LAYOUTS / layout).glob("*/config.json")):
        name, config = path.parent.name, json.loads(path.read_text())
        made = kinds[name].from_config(config) if name in kinds else texts[name](CLIPTextConfig.from_dict(config))
        parts[name] = made.half()
    pipeline: Any = StableDiffusionXLPipeline if "text_encoder_2" in parts else StableDiffusionPipeline
    scheduler = json.loads((LAYOUTS / layout / "scheduler" / "scheduler_config.json").read_text())
    parts["scheduler"] = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    parts["tokenizer"] = clip_tokenizer("<|endoftext|>")
    if "text_encoder_2" in parts:
        parts["tokenizer_2"] = clip_tokenizer("!")
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline(**parts).save_pretrained(folder)


def step_seconds(family: ModelFamily, side: int, rows: int, repeats: int = 10) -> float:
    """Median seconds of a forward."""
    latents = torch.randn(rows, family.autoencoder.latent_channels, side, side, device=family.device)
    timesteps = torch.full((rows,), 500.0, device=family.device)
    with torch.inference_mode():
        batch = DenoisingBatch(
            latents, timesteps, torch.ones_like(timesteps), family.encode([family.tokenize(Prompt("x"))]) * rows
        )
        for _ in range(3):
            family.predict(batch)
        seconds = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            start = time.perf_counter()
            family.predict(batch)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2]


def print_steps(config: ModelConfig, layout: str, peak: float) -> None:
    """The first table."""
    family = load_family(config)
    side = NATIVE_SIZE[layout] // family.autoencoder.scale_factor
    print(f"\n{layout}, {NATIVE_SIZE[layout]} px, {config.executor}")
    print("| UNet rows | ms a step | rows/s | rate / 1 row | share of peak |\n|---|---|---|---|---|")
    first = 0.0
    for rows in ROWS:
        seconds = step_seconds(family, side, rows)
        rate = rows / seconds
        first = first or rate
        share = rate * TFLOP_PER_ROW[layout] / peak
        print(f"| {rows} | {seconds * 1000:.1f} | {rate:.1f} | {rate / first:.2f} | {share:.0%} |", flush=True)


def engine_rate(config: ModelConfig, images: int) -> float:
    """Images a second with unlike steps and guidance, all at once."""
    with Engine.load(config) as engine:
        all_params = [
            GenerationParams(prompt=f"picture {n}", seed=n, num_inference_steps=20 + n % 11, sampler="euler")
            for n in range(images)
        ]
        requests = [resolve(params, "gpu", engine.capabilities)[0] for params in all_params]
        start = time.perf_counter()
        for future in [engine.submit(request) for request in requests]:
            future.result()
        return images / (time.perf_counter() - start)


def pipeline_rate(folder: Path, images: int, batch: int) -> float:
    """Images a second of the stock pipeline, 25 steps each: the mean of the engine's."""
    pipeline: Any = DiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float16).to("cuda")
    pipeline.set_progress_bar_config(disable=True)
    pipeline(["warm-up"] * batch, num_inference_steps=2)
    start = time.perf_counter()
    for first in range(0, images, batch):
        pipeline([f"picture {first}"] * batch, num_inference_steps=25)
    return images / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(TFLOP_PER_ROW), default="stable-diffusion")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this benchmark has nothing to measure here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_random(options.model, folder)
        config = ModelConfig(
            source=str(folder), native_size=NATIVE_SIZE[options.model], engine=EngineConfig(decode_batch=4)
        )
        print_steps(config, options.model, options.peak_tflops)
        if options.compile:
            config = config.model_copy(update={"executor": "compiled", "channels_last": True})
            print_steps(config, options.model, options.peak_tflops)
        alone = pipeline_rate(folder, options.images, 1)
        print("\n| contender | images/s | / pipeline alone |\n|---|---|---|")
        print(f"| pipeline, one at a time | {alone:.2f} | 1.00 |")
        for batch in (4, 8):
            rate = pipeline_rate(folder, options.images, batch)
            print(f"| pipeline, static batches of {batch} | {rate:.2f} | {rate / alone:.2f} |")
        rate = engine_rate(config, options.images)
        print(f"| engine, unlike requests | {rate:.2f} | {rate / alone:.2f} |")


if __name__ == "__main__":
    main()
