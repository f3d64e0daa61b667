"""From AUTOMATIC1111's fields to `GenerationParams`. What changes the image and is not supported is refused."""

from collections.abc import Mapping
from typing import Any

from serve_app.api.a1111.inpainting import InpaintPlan, Overlay, plan_inpainting
from serve_app.api.a1111.schemas import A1111Img2ImgBody, A1111Txt2ImgBody
from serve_app.api.prompt_templates import check_growth, fill_template
from serve_app.config import PresetConfig
from serve_app.errors import InvalidRequest, UnknownName
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.image_files import ResizeMode
from serve_app.requests.params import GenerationParams
from serve_app.requests.samplers import SAMPLERS, find_sampler, find_schedule

NOTHING = (None, "", False, {}, [])
UNSUPPORTED_DEFAULTS: dict[str, tuple[object, ...]] = {
    "script_name": NOTHING,
    "alwayson_scripts": NOTHING,
    "tiling": NOTHING,
    "restore_faces": NOTHING,
    "refiner_checkpoint": NOTHING,
    "s_churn": NOTHING,
    "s_noise": (None, 1),
    "initial_noise_multiplier": (None, 1),
    "seed_resize_from_w": (*NOTHING, -1),
    "seed_resize_from_h": (*NOTHING, -1),
}
"""Unsupported fields, with the values that ask for nothing."""
UNSUPPORTED_HIRES_DEFAULTS: dict[str, tuple[object, ...]] = {
    "hr_prompt": NOTHING,
    "hr_negative_prompt": NOTHING,
    "hr_checkpoint_name": (*NOTHING, "Use same checkpoint"),
    "hr_sampler_name": (*NOTHING, "Use same sampler"),
    "hr_scheduler": (*NOTHING, "Use same scheduler", "Automatic"),
}
"""Unsupported fields of the second pass, which uses the values of the first."""
RESIZE_MODES: dict[int, ResizeMode] = {0: "stretch", 1: "crop", 2: "fill"}


def to_params(
    body: A1111Txt2ImgBody, presets: Mapping[str, PresetConfig], max_characters: int, **more: Any
) -> GenerationParams:
    """The parameters of a body; `more` replaces some of them. `max_characters` is the model's longest prompt.

    Raises:
        InvalidRequest: names the field, its value and what is allowed.
    """
    unsupported = {**UNSUPPORTED_DEFAULTS, **(UNSUPPORTED_HIRES_DEFAULTS if body.enable_hr else {})}
    for field, harmless in unsupported.items():
        if (value := getattr(body, field, None)) not in harmless:
            raise InvalidRequest(field, value, "must be left out: it is not supported")
    sampler, scheduler = read_a1111_names(body.sampler_name or body.sampler_index, body.scheduler)
    skip = body.override_settings.get("CLIP_stop_at_last_layers", 1)
    if not isinstance(skip, int) or not 1 <= skip <= 12:
        raise InvalidRequest("override_settings.CLIP_stop_at_last_layers", skip, "must be between 1 and 12")
    prompt, negative_prompt = apply_styles(body, presets, max_characters)
    values: dict[str, Any] = {
        "model": checkpoint_name(body),
        "prompt": prompt,
        "negative_prompt": negative_prompt or None,
        "width": body.width,
        "height": body.height,
        "num_inference_steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": None if body.seed == -1 else body.seed,
        "subseed": None if body.subseed == -1 else body.subseed,
        "subseed_strength": body.subseed_strength,
        "num_images": body.batch_size * body.n_iter,
        "prompt_syntax": "a1111",
        "clip_skip": skip - 1,
        "hires": hires_values(body) if body.enable_hr else None,
    }
    return GenerationParams.checked(**{**values, **more})


def checkpoint_name(body: A1111Txt2ImgBody) -> str | None:
    """The model that `override_settings` names, without AUTOMATIC1111's hash and file ending."""
    given = body.override_settings.get("sd_model_checkpoint")
    return plain_checkpoint(given) if given else None


def plain_checkpoint(given: object) -> str:
    """`name.safetensors [hash]` to `name`."""
    return str(given).partition(" ")[0].removesuffix(".safetensors")


def apply_styles(body: A1111Txt2ImgBody, presets: Mapping[str, PresetConfig], max_characters: int) -> tuple[str, str]:
    """Prompt and negative prompt with presets as prompt styles: the first variable is the prompt, others stay empty.

    Raises:
        InvalidRequest: a style is unknown, or one of the prompts grows over `max_characters`.
    """
    prompt, negative_prompt = body.prompt, body.negative_prompt
    for field, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > max_characters:
            raise InvalidRequest(field, text, f"must be at most {max_characters} characters")
    for style in body.styles:
        preset = presets.get(style)
        if preset is None:
            raise UnknownName("styles", style, f"must be among {', '.join(presets) or 'none: no style is configured'}")
        prompt = fill_template(preset.prompt, first_variable(preset, prompt), max_characters, "styles")
        negative_prompt = ", ".join(part for part in (negative_prompt, preset.negative_prompt) if part)
        check_growth(len(negative_prompt), max_characters, "styles")
    return prompt, negative_prompt


def first_variable(preset: PresetConfig, text: str) -> dict[str, str]:
    """`text` for the first variable of the template, and nothing for the others."""
    return {name: "" if index else text for index, name in enumerate(preset.variables)}


def hires_values(body: A1111Txt2ImgBody) -> dict[str, Any]:
    """The `hr_*` fields. Every latent upscaler is bilinear here, every other one Lanczos."""
    return {
        "scale": body.hr_scale,
        "width": body.hr_resize_x or None,
        "height": body.hr_resize_y or None,
        "strength": 0.7 if body.denoising_strength is None else body.denoising_strength,
        "num_inference_steps": body.hr_second_pass_steps or None,
        "upscaler": "latent" if (body.hr_upscaler or "Latent").startswith("Latent") else "lanczos",
    }


def img2img_params(
    body: A1111Img2ImgBody, presets: Mapping[str, PresetConfig], model: ModelCapabilities
) -> tuple[GenerationParams, Overlay | None]:
    """The parameters of an `img2img`, and what to put back around the image. Images that are not echoed are dropped.

    Raises:
        InvalidRequest: names the field, its value and what is allowed.
    """
    plan = plan_inpainting(body, model.limits.max_input_pixels)
    params = to_params(body, presets, model.limits.max_prompt_characters, **image_values(body, plan, model))
    if not body.include_init_images:
        body.init_images, body.mask = [], None
    return params, plan.overlay


def image_values(body: A1111Img2ImgBody, plan: InpaintPlan, model: ModelCapabilities) -> dict[str, Any]:
    """The parameters that `img2img` adds. A masked region is drawn at the native size unless a size is given."""
    if body.resize_mode not in RESIZE_MODES:
        raise InvalidRequest("resize_mode", body.resize_mode, "must be 0, 1 or 2")
    native = model.native_size if body.inpaint_full_res and plan.mask else None
    return {
        "image": plan.image,
        "mask": plan.mask,
        "width": body.width or native,
        "height": body.height or native,
        "strength": 0.75 if body.denoising_strength is None else body.denoising_strength,
        "resize_mode": RESIZE_MODES[body.resize_mode],
        "hires": None,
    }


def read_a1111_names(sampler: str | None, scheduler: str | None) -> tuple[str | None, str | None]:
    """AUTOMATIC1111's sampler and scheduler in our names, with its schedule for a sampler that comes without one.

    `DPM++ 2M Karras` is a sampler and its schedule.

    Raises:
        UnknownName: no such sampler.
    """
    if sampler is None:
        return None, scheduler
    if find_sampler(sampler) is None:
        name, _, last = sampler.rpartition(" ")
        if find_sampler(name) is not None and find_schedule(last) is not None:
            sampler, scheduler = name, scheduler or last
    known = find_sampler(sampler)
    if known is None:
        labels = ", ".join(one.label for one in SAMPLERS.values())
        raise UnknownName("sampler_name", sampler, f"must be one of {labels}")
    if scheduler is None or find_schedule(scheduler) == "automatic":
        return known, SAMPLERS[known].a1111_schedule
    return known, scheduler
