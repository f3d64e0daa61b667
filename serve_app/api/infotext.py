"""AUTOMATIC1111's infotext: the parameters of an image, written into its file and read from one."""

import re
from collections.abc import Iterator
from importlib.metadata import version

from serve_app.requests.params import Infotext, SamplingParams
from serve_app.requests.request import GenerationRequest
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

FIELD = re.compile(r'([\w ()/+-]++)(?::\s*+("(?:\\.|[^"\\])*+"(?=,|$)|[^,]*+))?')
"""A key, and its value where it has one. Nothing is given back once it has matched (`++`), so one pass is enough."""


def write_infotext(request: GenerationRequest) -> str:
    """Prompt, negative prompt and a line of `Key: value`, as AUTOMATIC1111 writes and reads them."""
    lines = [request.prompt]
    if request.sampling.negative_prompt:
        lines.append(f"Negative prompt: {request.sampling.negative_prompt}")
    fields = {
        **dict(_sampling_fields(request.sampling, always=True)),
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
        **dict(_sampling_fields(request.sampling, always=False)),
        **_feature_fields(request),
        "Version": f"darkroom {version('darkroom')}",
    }
    lines.append(", ".join(f"{key}: {value}" for key, value in fields.items()))
    return "\n".join(lines)


def _sampling_fields(sampling: SamplingParams, always: bool) -> Iterator[tuple[str, object]]:
    """The sampling parameters that declare an `Infotext`: those written always, or those off their default."""
    labels = {"sampler": SAMPLERS[sampling.sampler].label, "scheduler": SCHEDULES[sampling.scheduler].label}
    for name, field in SamplingParams.model_fields.items():
        value = getattr(sampling, name)
        for mark in field.metadata:
            if isinstance(mark, Infotext) and mark.always == always and (always or value != field.default):
                number = value + mark.offset if isinstance(value, int) else value
                yield mark.key, labels.get(name) or (f"{number:g}" if isinstance(number, float) else number)


def _feature_fields(request: GenerationRequest) -> dict[str, object]:
    """What only some images have, under AUTOMATIC1111's keys."""
    found: dict[str, object] = {}
    if request.init is not None:
        found["Denoising strength"] = f"{request.init.strength:g}"
    if request.variation is not None:
        found["Variation seed"] = request.variation.seed
        found["Variation seed strength"] = f"{request.variation.strength:g}"
    if request.hires is not None:
        found["Denoising strength"] = f"{request.hires.strength:g}"
        found["Hires resize"] = f"{request.hires.width}x{request.hires.height}"
        found["Hires steps"] = request.hires.num_inference_steps
        found["Hires upscaler"] = request.hires.upscaler.capitalize()
    if request.loras:
        found["Loras"] = '"' + ", ".join(f"{lora.name}: {lora.weight:g}" for lora in request.loras) + '"'
    return found


def read_infotext(text: str) -> dict[str, str]:
    """An infotext's prompt, negative prompt and fields, by AUTOMATIC1111's keys; empty where there is none."""
    if not text:
        return {}
    *lines, last = text.split("\n")
    if not last.startswith("Steps: "):
        lines, last = [*lines, last], ""
    prompt, _, negative = "\n".join(lines).partition("Negative prompt: ")
    fields = (match.groups() for match in FIELD.finditer(last) if match[2] is not None and match[1].strip())
    found = {name.strip(): value.strip().strip('"') for name, value in fields}
    if re.fullmatch(r"\d+x\d+", found.get("Size", "")):
        found["Size-1"], _, found["Size-2"] = found.pop("Size").partition("x")
    return {"Prompt": prompt.strip(), "Negative prompt": negative.strip(), **found}
