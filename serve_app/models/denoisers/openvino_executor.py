"""The UNet on OpenVINO's CPU plugin: about twice as fast as torch for few rows, as fast for many."""

import copy
import warnings
from typing import Any

import openvino
import torch
from diffusers import UNet2DConditionModel

from serve_app.models.denoisers.executor import EagerExecutor, UNetInputs

TRACED_ROWS, TRACED_TOKENS, TRACED_SIDE = 2, 77, 16
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class OpenVINOExecutor(EagerExecutor):
    """One graph for any number of rows, any size, with and without a prompt mask. Batches with LoRAs run on torch.

    It computes in the UNet's own dtype; in float32 its results are torch's, to about 1e-4.
    """

    def __init__(self, unet: UNet2DConditionModel, threads: int) -> None:
        super().__init__(unet)
        traced = _Traced(copy.deepcopy(unet).float())
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about constants; OpenVINO's own exporters trace too
            model = openvino.convert_model(traced, example_input=traced.example())
        self._names = [name for name, _ in traced.inputs]
        options = {"INFERENCE_PRECISION_HINT": PRECISIONS[unet.dtype], "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **options})
        self._request = compiled.create_infer_request()

    def run(self, inputs: UNetInputs, no_lora: bool) -> torch.Tensor:
        """See `Executor`."""
        if not no_lora:
            return super().run(inputs, no_lora)
        given = {
            "latents": inputs.latents,
            "timesteps": inputs.timesteps,
            "prompt_embeds": inputs.prompt_embeds,
            "prompt_mask": inputs.prompt_mask,
            "timestep_cond": inputs.timestep_cond,
            **inputs.added,
        }
        if inputs.prompt_mask is None:
            given["prompt_mask"] = torch.ones(inputs.prompt_embeds.shape[:2])
        tensors = [given[name].float().contiguous().numpy() for name in self._names]  # pyright: ignore
        found = self._request.infer(tensors, share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0]).to(inputs.latents.dtype, copy=True)


class _Traced(torch.nn.Module):
    """The UNet with its inputs as positional arguments, in a fixed order."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        config: Any = unet.config
        self._unet: Any = unet
        embeds = (TRACED_TOKENS, config["cross_attention_dim"])
        self.inputs: list[tuple[str, tuple[int, ...]]] = [
            ("latents", (config["in_channels"], TRACED_SIDE, TRACED_SIDE)),
            ("timesteps", ()),
            ("prompt_embeds", embeds),
            ("prompt_mask", embeds[:1]),
        ]
        if config["time_cond_proj_dim"] is not None:
            self.inputs.append(("timestep_cond", (config["time_cond_proj_dim"],)))
        if config["addition_embed_type"] == "text_time":
            ids = 6
            width = config["projection_class_embeddings_input_dim"] - ids * config["addition_time_embed_dim"]
            self.inputs += [("text_embeds", (width,)), ("time_ids", (ids,))]

    def example(self) -> tuple[torch.Tensor, ...]:
        """Tensors of the shapes to trace with."""
        return tuple(torch.ones(TRACED_ROWS, *shape) for _, shape in self.inputs)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The model output, (rows, c, h, w)."""
        given = dict(zip((name for name, _ in self.inputs), tensors, strict=True))
        latents, timesteps, embeds, mask = (given.pop(name) for name, _ in self.inputs[:4])
        condition = given.pop("timestep_cond", None)
        return self._unet(
            latents,
            timesteps,
            embeds,
            None,
            condition,
            None,
            None,
            given or None,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
