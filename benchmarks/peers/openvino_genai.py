"""OpenVINO GenAI's Text2ImagePipeline behind FastAPI, one image at a time: the fastest executor on a CPU, no batching.

Its own samplers are DDIM, Euler and PNDM; a body that asks for another gets Euler, which makes as many UNet calls.

    python -m benchmarks.peers.openvino_genai --port 9003 --folder converted
"""

import argparse
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import openvino_tokenizers
import torch
import uvicorn
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.peers.one_at_a_time import create_app
from benchmarks.peers.stock import as_png
from serve_app.config import ModelConfig
from serve_app.models.loading.sources import find_checkpoint


class VaeDecoder(torch.nn.Module):
    """The VAE's second half, as a module with one input."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self._vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, 4, h, w) to (n, 3, H, W)."""
        return self._vae.decode(latents, return_dict=False)[0]


class TextEncoder(torch.nn.Module):
    """The CLIP text model, the hidden states only."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self._encoder = encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(n, 77) to (n, 77, width)."""
        return self._encoder(input_ids, return_dict=False)[0]


class UNet(torch.nn.Module):
    """The UNet's first output."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self._unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """(n, 4, h, w) both ways."""
        return self._unet(sample, timestep, states, return_dict=False)[0]


def convert(source: str, folder: Path) -> None:
    """The checkpoint in OpenVINO's own layout."""
    checkpoint = find_checkpoint(ModelConfig(source=source))
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(checkpoint), torch_dtype=torch.float32)
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    latents = torch.zeros(2, pipeline.vae.config["latent_channels"], 16, 16)
    states = torch.zeros(2, 77, pipeline.unet.config["cross_attention_dim"])
    parts: dict[str, tuple[Any, tuple[Any, ...], list[str]]] = {
        "text_encoder": (TextEncoder(pipeline.text_encoder), (tokens,), ["input_ids"]),
        "unet": (
            UNet(pipeline.unet),
            (latents, torch.tensor([1]), states),
            ["sample", "timestep", "encoder_hidden_states"],
        ),
        "vae_decoder": (VaeDecoder(pipeline.vae), (latents,), ["latent_sample"]),
    }
    for name, (module, example, inputs) in parts.items():
        with torch.inference_mode():
            model = openvino.convert_model(module.eval(), example_input=example)
        for port, label in zip(model.inputs, inputs, strict=True):
            port.get_tensor().set_names({label})
        openvino.save_model(model, folder / name / "openvino_model.xml", compress_to_fp16=False)
        shutil.copy(checkpoint / name.removesuffix("_decoder") / "config.json", folder / name)
    tokenizer = openvino_tokenizers.convert_tokenizer(pipeline.tokenizer, max_length=77, use_max_padding=True)
    openvino.save_model(tokenizer, folder / "tokenizer" / "openvino_tokenizer.xml")
    shutil.copytree(checkpoint / "scheduler", folder / "scheduler", dirs_exist_ok=True)
    shutil.copy(checkpoint / "model_index.json", folder)


class GenAI:
    """The pipeline and its samplers."""

    def __init__(self, folder: Path) -> None:
        self._turn = threading.Lock()
        self._pipeline = genai.Text2ImagePipeline(str(folder), "CPU")
        config = folder / "scheduler" / "scheduler_config.json"
        kinds = genai.Scheduler.Type
        self._samplers = {
            name: genai.Scheduler.from_config(config, kind)
            for name, kind in {"euler": kinds.EULER_DISCRETE, "ddim": kinds.DDIM}.items()
        }

    def draw(self, body: Mapping[str, Any]) -> bytes:
        """One PNG; one call at a time."""
        with self._turn:
            return self._draw(body)

    def _draw(self, body: Mapping[str, Any]) -> bytes:
        self._pipeline.set_scheduler(self._samplers.get(body["sampler"], self._samplers["euler"]))
        drawn = self._pipeline.generate(
            body["prompt"],
            num_inference_steps=body["num_inference_steps"],
            guidance_scale=body["guidance_scale"],
            width=body["width"],
            height=body["height"],
            rng_seed=body["seed"],
        )
        return as_png(Image.fromarray(np.asarray(drawn.data)[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="builtin:emoji")
    options = parser.parse_args()
    if not (options.folder / "model_index.json").exists():
        convert(options.model, options.folder)
    uvicorn.run(create_app(GenAI(options.folder).draw), port=options.port, log_level="warning")
