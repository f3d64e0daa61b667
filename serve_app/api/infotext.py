"""A1111's infotext: the parameters of a picture, written into its file."""

from importlib.metadata import version

from serve_app.api.names import SAMPLER_LABELS
from serve_app.engine.request import GenerationRequest


def write_infotext(request: GenerationRequest) -> str:
    """Prompt, negative prompt and a line of `Key: value`, as A1111 writes and reads them."""
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    fields = {
        "Steps": request.num_inference_steps,
        "Sampler": SAMPLER_LABELS[request.sampler],
        "Schedule type": request.schedule.replace("_", " ").capitalize().replace("Sgm u", "SGM U"),
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": request.model,
        "Version": f"darkroom {version('darkroom')}",
    }
    lines.append(", ".join(f"{key}: {value}" for key, value in fields.items()))
    return "\n".join(lines)
