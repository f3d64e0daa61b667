"""What AUTOMATIC1111's fields ask for, in ours; what would change the picture and is not available is refused."""

from dataclasses import replace

from serve_app.api.a1111.inpainting import InpaintPlan
from serve_app.api.a1111.schemas import A1111Img2ImgBody, A1111Txt2ImgBody
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.names import read_a1111_names
from serve_app.config import AppConfig, ModelConfig, PresetConfig
from serve_app.errors import InvalidRequest, UnknownName
from serve_app.requests.input_images import ResizeMode
from serve_app.requests.params import GenerationParams, HiresParams

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
"""What is not available, with the values that ask for nothing."""
UNSUPPORTED_HIRES_DEFAULTS: dict[str, tuple[object, ...]] = {
    "hr_prompt": NOTHING,
    "hr_negative_prompt": NOTHING,
    "hr_checkpoint_name": (*NOTHING, "Use same checkpoint"),
    "hr_sampler_name": (*NOTHING, "Use same sampler"),
    "hr_scheduler": (*NOTHING, "Use same scheduler", "Automatic"),
}
"""Likewise of the second pass: it uses the first's."""
RESIZE: dict[int, ResizeMode] = {0: "stretch", 1: "crop", 2: "fill"}


def model_of(dispatcher: Dispatcher, body: A1111Txt2ImgBody) -> tuple[str, ModelConfig]:
    """The model that `override_settings` names, else the default."""
    asked = body.override_settings.get("sd_model_checkpoint")
    name = dispatcher.model_name(str(asked).partition(" ")[0].removesuffix(".safetensors") if asked else None)
    return name, dispatcher.config.models[name]


def to_params(body: A1111Txt2ImgBody, config: AppConfig) -> GenerationParams:
    """A1111's fields to ours."""
    for field, harmless in {**UNSUPPORTED_DEFAULTS, **(UNSUPPORTED_HIRES_DEFAULTS if body.enable_hr else {})}.items():
        if (value := getattr(body, field, None)) not in harmless:
            raise InvalidRequest(field, value, "must be left out: it is not available here")
    sampler, scheduler = read_a1111_names(body.sampler_name or body.sampler_index, body.scheduler)
    skip = body.override_settings.get("CLIP_stop_at_last_layers", 1)
    if not isinstance(skip, int) or not 1 <= skip <= 12:
        raise InvalidRequest("override_settings.CLIP_stop_at_last_layers", skip, "must be between 1 and 12")
    prompt, negative_prompt = apply_styles(body, config)
    return GenerationParams(
        prompt=prompt,
        negative_prompt=negative_prompt or None,
        width=body.width,
        height=body.height,
        num_inference_steps=body.steps,
        guidance_scale=body.cfg_scale,
        sampler=sampler,
        scheduler=scheduler,
        seed=None if body.seed == -1 else body.seed,
        subseed=None if body.subseed == -1 else body.subseed,
        subseed_strength=body.subseed_strength,
        num_images=body.batch_size * body.n_iter,
        prompt_syntax="a1111",
        clip_skip=skip - 1,
        hires=read_hires(body) if body.enable_hr else None,
    )


def apply_styles(body: A1111Txt2ImgBody, config: AppConfig) -> tuple[str, str]:
    """Presets as prompt styles: the first variable is the prompt, others stay empty."""
    prompt, negative_prompt = body.prompt, body.negative_prompt
    for style in body.styles:
        preset = config.presets.get(style)
        if preset is None:
            raise UnknownName(
                "styles", style, f"must be among {', '.join(config.presets) or 'none: there are no styles'}"
            )
        prompt = fill_first(preset, prompt)
        negative_prompt = ", ".join(part for part in (negative_prompt, preset.negative_prompt) if part)
    return prompt, negative_prompt


def fill_first(preset: PresetConfig, text: str) -> str:
    """The template with `text` for its first variable and nothing for the others."""
    names = preset.variables
    return preset.prompt.format(**{name: text if name == names[0] else "" for name in names})


def read_hires(body: A1111Txt2ImgBody) -> HiresParams:
    """`hr_*` fields; every latent upscaler is bilinear here, every other one Lanczos."""
    latent = (body.hr_upscaler or "Latent").startswith("Latent")
    return HiresParams(
        body.hr_scale,
        body.hr_resize_x or None,
        body.hr_resize_y or None,
        0.7 if body.denoising_strength is None else body.denoising_strength,
        body.hr_second_pass_steps or None,
        "latent" if latent else "lanczos",
    )


def with_images(
    wish: GenerationParams, body: A1111Img2ImgBody, repainting: InpaintPlan, config: ModelConfig
) -> GenerationParams:
    """The wish with its picture; without a size it is the native one, as a region's own size means nothing."""
    if body.resize_mode not in RESIZE:
        raise InvalidRequest("resize_mode", body.resize_mode, "must be 0, 1 or 2")
    native = config.native_size if body.inpaint_full_res and repainting.mask else None
    return replace(
        wish,
        image=repainting.image,
        mask=repainting.mask,
        width=wish.width or native,
        height=wish.height or native,
        strength=0.75 if body.denoising_strength is None else body.denoising_strength,
        resize_mode=RESIZE[body.resize_mode],
        hires=None,
    )
