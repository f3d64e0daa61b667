"""AUTOMATIC1111's `/sdapi/v1`: drawing, progress and interruption."""

import base64
import json
import time
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from serve_app.api.a1111_inpaint import Overlay, Repainting, plan
from serve_app.api.a1111_schemas import (
    ImagesResponse,
    Img2ImgBody,
    ProgressResponse,
    ProgressState,
    TaskProgressBody,
    TaskProgressResponse,
    Txt2ImgBody,
)
from serve_app.api.callers import caller_of
from serve_app.api.desk import Desk
from serve_app.api.generate import with_infotext
from serve_app.api.names import read_a1111_names
from serve_app.api.shapes import A1111Problem
from serve_app.config import AppConfig, ModelConfig
from serve_app.engine.pictures import ResizeMode
from serve_app.engine.request import Delivery, GenerationRequest
from serve_app.engine.resolve import resolve_all
from serve_app.engine.wish import HiresWish, Wish
from serve_app.errors import InvalidRequest, UnknownName

LATEST = "latest"
"""The task of a request that names none."""
PREVIEWS = 6
REFUSED_FEATURES = ("script_name", "tiling", "restore_faces", "alwayson_scripts")
RESIZE: dict[int, ResizeMode] = {0: "stretch", 1: "crop", 2: "fill"}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": A1111Problem, "description": text}
    for status, text in {
        401: "no valid key",
        404: "no such sampler",
        409: "interrupted",
        413: "body over the limit",
        422: "a field is out of its limit, or the picture was refused",
        429: "the queue is full, or a limit of the key is reached",
        500: "this image could not be drawn",
        503: "warming up or draining",
    }.items()
}


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["automatic1111"], responses=REFUSALS)

    @routes.post("/sdapi/v1/txt2img")
    async def txt2img(body: Txt2ImgBody, request: Request) -> ImagesResponse:
        """Draw images from a prompt."""
        return await draw(desk, request, body, read_wish(body, desk.config))

    @routes.post("/sdapi/v1/img2img")
    async def img2img(body: Img2ImgBody, request: Request) -> ImagesResponse:
        """Draw over an image, or over its mask."""
        config = model_of(desk, body)[1]
        repainting = plan(body, config.limits)
        wish = with_images(read_wish(body, desk.config), body, repainting, config)
        return await draw(desk, request, body, wish, repainting.overlay)

    @routes.get("/sdapi/v1/progress")
    async def progress(request: Request, skip_current_image: bool = False) -> ProgressResponse:
        """How far the caller's latest request without a task id is."""
        found = await desk.progress_of(caller_of(request.scope), LATEST)
        if found is None:
            return ProgressResponse(progress=0.0, eta_relative=0.0, state=ProgressState())
        picture = base64.b64encode(found.preview).decode() if found.preview and not skip_current_image else None
        state = ProgressState(job=LATEST, job_count=1, sampling_step=found.step, sampling_steps=found.steps)
        return ProgressResponse(
            progress=found.step / found.steps, eta_relative=found.eta_s, state=state, current_image=picture
        )

    @routes.post("/internal/progress")
    async def task_progress(body: TaskProgressBody, request: Request) -> TaskProgressResponse:
        """How far a task of the caller's is, by its `force_task_id`."""
        found = await desk.progress_of(caller_of(request.scope), body.id_task)
        if found is None:
            return TaskProgressResponse(active=False, queued=False, completed=True)
        picture = base64.b64encode(found.preview).decode() if found.preview and body.live_preview else None
        return TaskProgressResponse(
            active=True,
            queued=False,
            completed=False,
            progress=found.step / found.steps,
            eta=found.eta_s,
            live_preview=f"data:image/png;base64,{picture}" if picture else None,
            id_live_preview=found.step,
        )

    @routes.post("/sdapi/v1/interrupt")
    @routes.post("/sdapi/v1/skip")
    async def interrupt(request: Request, task: str = LATEST) -> dict[str, Any]:
        """Stop the caller's own task."""
        await desk.cancel(caller_of(request.scope), task)
        return {}

    return routes


def model_of(desk: Desk, body: Txt2ImgBody) -> tuple[str, ModelConfig]:
    """The model that `override_settings` names, else the default."""
    asked = body.override_settings.get("sd_model_checkpoint")
    name = desk.model_name(str(asked).partition(" ")[0].removesuffix(".safetensors") if asked else None)
    return name, desk.config.models[name]


def read_wish(body: Txt2ImgBody, config: AppConfig) -> Wish:
    """A1111's fields to ours."""
    for field in REFUSED_FEATURES:
        if getattr(body, field):
            raise InvalidRequest(field, getattr(body, field), "must be left out: it is not available here")
    sampler, scheduler = read_a1111_names(body.sampler_name or body.sampler_index, body.scheduler)
    skip = body.override_settings.get("CLIP_stop_at_last_layers", 1)
    if not isinstance(skip, int) or not 1 <= skip <= 12:
        raise InvalidRequest("override_settings.CLIP_stop_at_last_layers", skip, "must be between 1 and 12")
    prompt, negative_prompt = apply_styles(body, config)
    return Wish(
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


def apply_styles(body: Txt2ImgBody, config: AppConfig) -> tuple[str, str]:
    """Presets as prompt styles: the first variable is the prompt, others stay empty."""
    prompt, negative_prompt = body.prompt, body.negative_prompt
    for style in body.styles:
        preset = config.presets.get(style)
        if preset is None:
            raise UnknownName(
                "styles", style, f"must be among {', '.join(config.presets) or 'none: there are no styles'}"
            )
        names = preset.variables
        prompt = preset.prompt.format(**{name: prompt if name == names[0] else "" for name in names})
        negative_prompt = ", ".join(part for part in (negative_prompt, preset.negative_prompt) if part)
    return prompt, negative_prompt


def read_hires(body: Txt2ImgBody) -> HiresWish:
    """`hr_*` fields; every latent upscaler is bilinear here, every other one Lanczos."""
    latent = (body.hr_upscaler or "Latent").startswith("Latent")
    return HiresWish(
        body.hr_scale,
        body.hr_resize_x or None,
        body.hr_resize_y or None,
        0.7 if body.denoising_strength is None else body.denoising_strength,
        body.hr_second_pass_steps or None,
        "latent" if latent else "lanczos",
    )


def with_images(wish: Wish, body: Img2ImgBody, repainting: Repainting, config: ModelConfig) -> Wish:
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


async def draw(
    desk: Desk, request: Request, body: Txt2ImgBody, wish: Wish, overlay: Overlay | None = None
) -> ImagesResponse:
    """Draw, and answer as A1111 does."""
    name, config = model_of(desk, body)
    requests = [with_infotext(one) for one in resolve_all(wish, name, config)]
    delivery = Delivery(body.force_task_id or LATEST, progress=True, previews=PREVIEWS)
    images = await desk.images(caller_of(request.scope), requests, delivery)
    echo = body.model_dump(exclude={"init_images", "mask"} if not getattr(body, "include_init_images", False) else None)
    contents = [image.content for image in images] if body.send_images else []
    if overlay is not None:
        contents = [
            await run_in_threadpool(overlay.apply, content, one.output)
            for content, one in zip(contents, requests, strict=True)
        ]
    encoded = [base64.b64encode(content).decode() for content in contents]
    return ImagesResponse(images=encoded, parameters=echo, info=json.dumps(describe(requests)))


def describe(requests: list[GenerationRequest]) -> dict[str, Any]:
    """`info`: what is true of the first image, and lists of what differs."""
    first = requests[0]
    subseeds = [one.variation.seed if one.variation else one.seed for one in requests]
    return {
        "prompt": first.prompt,
        "all_prompts": [one.prompt for one in requests],
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": [one.negative_prompt for one in requests],
        "seed": first.seed,
        "all_seeds": [one.seed for one in requests],
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": first.variation.strength if first.variation else 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": first.sampler,
        "cfg_scale": first.guidance.scale,
        "steps": first.num_inference_steps,
        "batch_size": len(requests),
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.model,
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.init.strength if first.init else None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [one.output.infotext for one in requests],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        "clip_skip": first.clip_skip + 1,
        "is_using_inpainting_conditioning": False,
        "version": "darkroom",
    }
