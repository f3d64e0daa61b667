"""A1111's infotext: the parameters of a picture, written into its file."""

import re
from importlib.metadata import version

from serve_app.api.names import SAMPLER_LABELS, SCHEDULE_LABELS
from serve_app.requests.request import GenerationRequest


def write_infotext(request: GenerationRequest) -> str:
    """Prompt, negative prompt and a line of `Key: value`, as A1111 writes and reads them."""
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    fields = {
        "Steps": request.num_inference_steps,
        "Sampler": SAMPLER_LABELS[request.sampler],
        "Schedule type": SCHEDULE_LABELS[request.schedule],
        "CFG scale": f"{request.guidance.scale:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
        **_features(request),
        "Version": f"darkroom {version('darkroom')}",
    }
    lines.append(", ".join(f"{key}: {value}" for key, value in fields.items()))
    return "\n".join(lines)


def _features(request: GenerationRequest) -> dict[str, object]:
    """What only some pictures have, under A1111's names."""
    found: dict[str, object] = {}
    if request.init is not None:
        found["Denoising strength"] = f"{request.init.strength:g}"
    if request.clip_skip:
        found["Clip skip"] = request.clip_skip + 1
    if request.variation is not None:
        found["Variation seed"] = request.variation.seed
        found["Variation seed strength"] = f"{request.variation.strength:g}"
    if request.guidance.rescale:
        found["CFG rescale"] = f"{request.guidance.rescale:g}"
    if request.hires is not None:
        found["Denoising strength"] = f"{request.hires.strength:g}"
        found["Hires resize"] = f"{request.hires.width}x{request.hires.height}"
        found["Hires steps"] = request.hires.num_inference_steps
        found["Hires upscaler"] = request.hires.upscaler.capitalize()
    if request.loras:
        found["Loras"] = '"' + ", ".join(f"{lora.name}: {lora.weight:g}" for lora in request.loras) + '"'
    return found


FIELD = re.compile(r'\s*([\w ()/+-]+?):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


def read_infotext(info: str) -> dict[str, str]:
    """An infotext's prompt, negative prompt and fields, by A1111's names; empty where there is none."""
    if not info:
        return {}
    *lines, last = info.split("\n")
    if not last.startswith("Steps: "):
        lines, last = [*lines, last], ""
    prompt, _, negative = "\n".join(lines).partition("Negative prompt: ")
    found = {name: value.strip().strip('"') for name, value in FIELD.findall(last)}
    if re.fullmatch(r"\d+x\d+", found.get("Size", "")):
        found["Size-1"], _, found["Size-2"] = found.pop("Size").partition("x")
    return {"Prompt": prompt.strip(), "Negative prompt": negative.strip(), **found}
