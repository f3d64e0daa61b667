"""AUTOMATIC1111's `/sdapi/v1/txt2img` and `img2img`."""

import base64
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from serve_app.api.a1111.a1111_errors import A1111_ERRORS
from serve_app.api.a1111.conversion import checkpoint_name, img2img_params, to_params
from serve_app.api.a1111.inpainting import Overlay
from serve_app.api.a1111.progress import latest_task
from serve_app.api.a1111.schemas import A1111ImagesResponse, A1111Img2ImgBody, A1111Txt2ImgBody
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.image_events import collect_images
from serve_app.api.pooled_route import PooledRoute
from serve_app.api.usage import Admission
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=PooledRoute, tags=["automatic1111"], responses=A1111_ERRORS)

    @routes.post("/sdapi/v1/txt2img")
    async def txt2img(
        body: A1111Txt2ImgBody, request: Request, admission: Annotated[Admission, Depends(dispatcher.drawing)]
    ) -> A1111ImagesResponse:
        """Draw images from a prompt."""
        await admission.admit(checkpoint_name(body), body.batch_size * body.n_iter)
        limits = dispatcher.config.settings_of(dispatcher.model_name(checkpoint_name(body))).limits
        params = to_params(body, dispatcher.config.presets, limits.max_prompt_characters)
        return await a1111_response(dispatcher, request, admission, body, params)

    @routes.post("/sdapi/v1/img2img")
    async def img2img(
        body: A1111Img2ImgBody, request: Request, admission: Annotated[Admission, Depends(dispatcher.drawing)]
    ) -> A1111ImagesResponse:
        """Draw over an image, or over its mask."""
        await admission.admit(checkpoint_name(body), body.batch_size * body.n_iter)
        model = await dispatcher.capabilities(checkpoint_name(body))
        params, overlay = await dispatcher.workers.run(
            admission.caller.name, img2img_params, body, dispatcher.config.presets, model
        )
        return await a1111_response(dispatcher, request, admission, body, params, overlay)

    return routes


async def a1111_response(
    dispatcher: Dispatcher,
    request: Request,
    admission: Admission,
    body: A1111Txt2ImgBody,
    params: GenerationParams,
    overlay: Overlay | None = None,
) -> A1111ImagesResponse:
    """Draw, and answer as AUTOMATIC1111 does."""
    requests = await dispatcher.resolve(admission, params)
    context = CallerContext(task=body.force_task_id or latest_task(request), progress=True)
    images = await collect_images(dispatcher.generate(admission, requests, context))
    requests = [requests[index] for index in images]
    echo = body.model_dump(exclude={"init_images", "mask"} if not getattr(body, "include_init_images", False) else None)
    contents = [image.content for image in images.values()]
    if overlay is not None:
        contents = [
            await dispatcher.workers.finish(admission.caller.name, overlay.apply, content, one.output)
            for content, one in zip(contents, requests, strict=True)
        ]
    encoded = [base64.b64encode(content).decode() for content in contents] if body.send_images else []
    return A1111ImagesResponse(images=encoded, parameters=echo, info=json.dumps(info_of(requests)))


def info_of(requests: list[GenerationRequest]) -> dict[str, Any]:
    """The `info` of a response: the first image's values, and lists of those that differ."""
    first = requests[0]
    subseeds = [one.variation.seed if one.variation else one.seed for one in requests]
    return {
        "prompt": first.prompt,
        "all_prompts": [one.prompt for one in requests],
        "negative_prompt": first.sampling.negative_prompt,
        "all_negative_prompts": [one.sampling.negative_prompt for one in requests],
        "seed": first.seed,
        "all_seeds": [one.seed for one in requests],
        "subseed": subseeds[0],
        "all_subseeds": subseeds,
        "subseed_strength": first.variation.strength if first.variation else 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": first.sampling.sampler,
        "cfg_scale": first.sampling.guidance_scale,
        "steps": first.sampling.num_inference_steps,
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
        "clip_skip": first.sampling.clip_skip + 1,
        "is_using_inpainting_conditioning": False,
        "version": "darkroom",
    }
