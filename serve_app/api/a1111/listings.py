"""AUTOMATIC1111's listings (samplers, models, options ...) and what it does with a single file."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from serve_app.api.a1111.a1111_errors import A1111_ERRORS
from serve_app.api.a1111.conversion import first_variable, plain_checkpoint
from serve_app.api.a1111.schemas import PngInfoBody, PngInfoResponse, UpscaleBody, UpscaleResponse
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.infotext import read_infotext
from serve_app.api.pooled_route import PooledRoute
from serve_app.api.usage import Admission
from serve_app.errors import InvalidRequest
from serve_app.requests.events import MemoryUse
from serve_app.requests.image_files import encode_png, fit, read_base64, read_image
from serve_app.requests.image_metadata import infotext_of
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

Entry = dict[str, Any]
Listing = Callable[[Dispatcher], Awaitable[Any]]


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes. Options tell what is in force; setting them changes nothing, since callers share the server."""
    routes = APIRouter(route_class=PooledRoute, prefix="/sdapi/v1", tags=["automatic1111"], responses=A1111_ERRORS)
    for path, listing in LISTINGS.items():
        answer = partial(listing, dispatcher)
        routes.add_api_route(f"/{path}", answer, methods=["GET"], name=path, description=listing.__doc__)

    @routes.get("/memory")
    async def memory() -> dict[str, Any]:
        """Bytes that the replicas hold, and what their machines and GPUs have."""
        return sum_memory(await dispatcher.service.memory())

    @routes.post("/options")
    async def set_options(given: dict[str, Any]) -> None:
        """Refuse an unknown checkpoint. Each request names its own, in `override_settings`."""
        if "sd_model_checkpoint" in given:
            dispatcher.model_name(plain_checkpoint(given["sd_model_checkpoint"]))

    @routes.post("/refresh-checkpoints")
    @routes.post("/refresh-loras")
    async def refresh() -> None:
        """Do nothing: the configuration says what is served."""

    @routes.post("/png-info")
    async def png_info(
        body: PngInfoBody, admission: Annotated[Admission, Depends(dispatcher.admission)]
    ) -> PngInfoResponse:
        """What an image's file says of how it was made."""
        await admission.admit_work()
        return await dispatcher.workers.run(
            admission.caller.name, describe_file, body, await most_input_pixels(dispatcher)
        )

    @routes.post("/extra-single-image")
    async def upscale(
        body: UpscaleBody, admission: Annotated[Admission, Depends(dispatcher.admission)]
    ) -> UpscaleResponse:
        """Enlarge an image with Lanczos."""
        await admission.admit_work()
        return await dispatcher.workers.run(admission.caller.name, enlarge, body, await most_input_pixels(dispatcher))

    return routes


async def most_input_pixels(dispatcher: Dispatcher) -> int:
    """The largest image that any model takes, pixels."""
    settings = [dispatcher.config.settings_of(name) for name in dispatcher.service.models]
    return max(one.limits.max_input_pixels for one in settings)


async def samplers(dispatcher: Dispatcher) -> list[Entry]:
    """Every sampler, with the names it also answers to."""
    return [
        {"name": one.label, "aliases": [f"k_{name}", *one.aliases], "options": {}} for name, one in SAMPLERS.items()
    ]


async def schedulers(dispatcher: Dispatcher) -> list[Entry]:
    """Every noise schedule."""
    more = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return [{"name": name, "label": one.label, **more} for name, one in SCHEDULES.items()]


async def sd_models(dispatcher: Dispatcher) -> list[Entry]:
    """Every model, by its configured name. The folder of its file is the operator's."""
    sources = {name: one.source for name, one in dispatcher.service.known_capabilities().items()}
    unknown = dict.fromkeys(("hash", "sha256", "config"))
    return [
        {"title": name, "model_name": name, "filename": PurePath(sources.get(name, "")).name, **unknown}
        for name in dispatcher.service.models
    ]


async def upscalers(dispatcher: Dispatcher) -> list[Entry]:
    """What enlarges images."""
    more = {"model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
    return [{"name": name, **more} for name in ("None", "Lanczos")]


async def prompt_styles(dispatcher: Dispatcher) -> list[Entry]:
    """Presets as prompt styles: clients put the prompt where the first variable stands."""
    return [
        {
            "name": name,
            "prompt": preset.prompt.format(**first_variable(preset, "{prompt}")),
            "negative_prompt": preset.negative_prompt,
        }
        for name, preset in dispatcher.config.presets.items()
    ]


async def loras(dispatcher: Dispatcher) -> list[Entry]:
    """The LoRAs of all models."""
    names = {name for model in dispatcher.service.known_capabilities().values() for name in model.loras}
    return [{"name": name, "alias": name, "path": "", "metadata": {}} for name in sorted(names)]


async def embeddings(dispatcher: Dispatcher) -> Entry:
    """The textual inversions of all models."""
    names = {name for model in dispatcher.service.known_capabilities().values() for name in model.embeddings}
    unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
    return {"loaded": dict.fromkeys(sorted(names), unknown), "skipped": {}}


async def options(dispatcher: Dispatcher) -> Entry:
    """The options that are in force."""
    name = dispatcher.model_name(None)
    return {
        "sd_model_checkpoint": name,
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": dispatcher.config.settings_of(name).defaults.clip_skip + 1,
        "samples_format": "png",
    }


def constant(value: Any) -> Listing:
    """A listing that is always the same."""

    async def listing(dispatcher: Dispatcher) -> Any:
        return value

    listing.__doc__ = f"Always `{json.dumps(value)}`."
    return listing


LISTINGS: Mapping[str, Listing] = {
    "samplers": samplers,
    "schedulers": schedulers,
    "sd-models": sd_models,
    "sd-vae": constant([]),
    "upscalers": upscalers,
    "latent-upscale-modes": constant([{"name": "Latent"}]),
    "prompt-styles": prompt_styles,
    "embeddings": embeddings,
    "loras": loras,
    "hypernetworks": constant([]),
    "face-restorers": constant([]),
    "realesrgan-models": constant([]),
    "cmd-flags": constant({"api": True, "listen": True}),
    "scripts": constant({"txt2img": [], "img2img": []}),
    "script-info": constant([]),
    "options": options,
}
"""What each listing's path answers."""


def sum_memory(found: Sequence[MemoryUse]) -> Entry:
    """A1111's figures over all processes; machines and GPUs that several share count once."""
    hosts, gpus = {one.host: one for one in found}.values(), {one.gpu: one for one in found if one.gpu}.values()
    used, total = sum(one.ram_used for one in found), sum(one.ram_total for one in hosts)
    ram = {"free": total - used, "used": used, "total": total}
    if not gpus:
        return {"ram": ram, "cuda": {"error": "unavailable"}}
    gpu_used, gpu_total = sum(one.gpu_used for one in gpus), sum(one.gpu_total for one in gpus)
    system = {"free": gpu_total - gpu_used, "used": gpu_used, "total": gpu_total}
    reserved = sum(one.gpu_reserved for one in found)
    return {"ram": ram, "cuda": {"system": system, "reserved": {"current": reserved}}}


def describe_file(body: PngInfoBody, max_pixels: int) -> PngInfoResponse:
    """The infotext in a file."""
    info = infotext_of(read_base64("image", body.image), "image", max_pixels)
    return PngInfoResponse(info=info, items={"parameters": info} if info else {}, parameters=read_infotext(info))


def enlarge(body: UpscaleBody, max_pixels: int) -> UpscaleResponse:
    """The image at its new size, as PNG."""
    if body.upscaler_1 not in ("None", "Lanczos"):
        raise InvalidRequest("upscaler_1", body.upscaler_1, "must be Lanczos")
    image = read_image("image", read_base64("image", body.image), max_pixels).convert("RGB")
    width, height = (max(1, round(side * body.upscaling_resize)) for side in image.size)
    if body.resize_mode == 1:
        width, height = body.upscaling_resize_w, body.upscaling_resize_h
    if width * height > max_pixels:
        raise InvalidRequest("upscaling_resize", f"{width}x{height}", f"must give at most {max_pixels} pixels")
    mode = "crop" if body.upscaling_crop and body.resize_mode == 1 else "stretch"
    content = encode_png(fit(image, width, height, mode))
    return UpscaleResponse(html_info="", image=base64.b64encode(content).decode())
