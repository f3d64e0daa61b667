"""AUTOMATIC1111's small lists: samplers, models, options, what a picture says of itself."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from PIL import Image
from PIL.ExifTags import IFD, Base

from serve_app.api.a1111.a1111_errors import A1111_ERRORS
from serve_app.api.a1111.conversion import fill_first
from serve_app.api.a1111.schemas import PngInfoBody, PngInfoResponse, UpscaleBody, UpscaleResponse
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.infotext import read_infotext
from serve_app.api.names import ALIASES, SAMPLER_LABELS, SCHEDULE_LABELS
from serve_app.config import AppConfig, Limits, ModelConfig, PresetConfig
from serve_app.errors import InvalidRequest
from serve_app.requests.events import MemoryUse
from serve_app.requests.input_images import fit, read_base64, read_picture

Entry = dict[str, Any]


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes. Options tell what is; they change nothing, since a server is shared."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["automatic1111"], responses=A1111_ERRORS)
    limits = max((model.limits for model in dispatcher.config.models.values()), key=lambda one: one.max_input_pixels)
    for path, found in listings(dispatcher.config).items():
        routes.add_api_route(f"/{path}", _always(found), methods=["GET"], name=path)

    @routes.get("/memory")
    async def memory() -> dict[str, Any]:
        """Bytes that the processes which draw hold, and what their machines and GPUs have."""
        return sum_memory(await dispatcher.service.memory())

    @routes.post("/options")
    async def set_options(asked: dict[str, Any]) -> None:
        """Refuses an unknown checkpoint; a known one is asked for in each request, by `override_settings`."""
        if "sd_model_checkpoint" in asked:
            dispatcher.model_name(str(asked["sd_model_checkpoint"]).partition(" ")[0])

    @routes.post("/refresh-checkpoints")
    @routes.post("/refresh-loras")
    async def refresh() -> None:
        """The configuration says what is served."""

    @routes.post("/png-info")
    async def png_info(body: PngInfoBody) -> PngInfoResponse:
        """What a picture's file says of how it was made."""
        info = infotext_of(read_base64("image", body.image), limits)
        return PngInfoResponse(info=info, items={"parameters": info} if info else {}, parameters=read_infotext(info))

    @routes.post("/extra-single-image")
    async def upscale(body: UpscaleBody) -> UpscaleResponse:
        """Enlarge a picture with Lanczos."""
        return UpscaleResponse(html_info="", image=base64.b64encode(enlarge(body, limits)).decode())

    return routes


def listings(config: AppConfig) -> dict[str, Any]:
    """Every list that only tells what is configured, by its path."""
    loras = sorted({name for model in config.models.values() for name in model.loras})
    embeddings = {
        name: {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
        for model in config.models.values()
        for name in model.embeddings
    }
    return {
        "samplers": [sampler_entry(name, label) for name, label in SAMPLER_LABELS.items()],
        "schedulers": [schedule_entry(name, label) for name, label in SCHEDULE_LABELS.items()],
        "sd-models": [model_entry(name, model) for name, model in config.models.items()],
        "sd-vae": [],
        "upscalers": [upscaler_entry("None"), upscaler_entry("Lanczos")],
        "latent-upscale-modes": [{"name": "Latent"}],
        "prompt-styles": [style_entry(name, preset) for name, preset in config.presets.items()],
        "embeddings": {"loaded": embeddings, "skipped": {}},
        "loras": [{"name": name, "alias": name, "path": "", "metadata": {}} for name in loras],
        "hypernetworks": [],
        "face-restorers": [],
        "realesrgan-models": [],
        "cmd-flags": {"api": True, "listen": True},
        "scripts": {"txt2img": [], "img2img": []},
        "script-info": [],
        "options": options_of(config),
    }


def options_of(config: AppConfig) -> Entry:
    """The few options that are true of a server without any."""
    return {
        "sd_model_checkpoint": config.default_model,
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": config.models[config.default_model].defaults.clip_skip + 1,
        "samples_format": "png",
    }


def model_entry(name: str, model: ModelConfig) -> Entry:
    """One checkpoint, by its configured name."""
    unknown = dict.fromkeys(("hash", "sha256", "config"))
    return {"title": name, "model_name": name, "filename": model.source, **unknown}


def _always(found: Any) -> Any:
    async def listing() -> Any:
        return found

    return listing


def sampler_entry(name: str, label: str) -> Entry:
    """One sampler, with the names it also answers to."""
    aliases = [f"k_{name}", *(alias for alias, meant in ALIASES.items() if meant == name)]
    return {"name": label, "aliases": aliases, "options": {}}


def schedule_entry(name: str, label: str) -> Entry:
    """One noise schedule."""
    return {"name": name, "label": label, "aliases": None, "default_rho": -1.0, "need_inner_model": False}


def upscaler_entry(name: str) -> Entry:
    """One upscaler."""
    return {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}


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


def style_entry(name: str, preset: PresetConfig) -> Entry:
    """A preset as a prompt style: where its first variable stands, clients put the prompt."""
    return {"name": name, "prompt": fill_first(preset, "{prompt}"), "negative_prompt": preset.negative_prompt or ""}


def infotext_of(content: bytes, limits: Limits) -> str:
    """The infotext in a PNG's text or in EXIF's user comment; empty where there is none."""
    read_picture("image", content, limits)
    image = Image.open(io.BytesIO(content))
    comment = image.getexif().get_ifd(IFD.Exif).get(Base.UserComment, b"")
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        return comment[8:].decode("utf-16-be", "replace")
    return str(image.info.get("parameters", ""))


def enlarge(body: UpscaleBody, limits: Limits) -> bytes:
    """The picture at its new size, as PNG."""
    if body.upscaler_1 not in ("None", "Lanczos"):
        raise InvalidRequest("upscaler_1", body.upscaler_1, "must be Lanczos")
    image = read_picture("image", read_base64("image", body.image), limits).convert("RGB")
    width, height = (max(1, round(side * body.upscaling_resize)) for side in image.size)
    if body.resize_mode == 1:
        width, height = body.upscaling_resize_w, body.upscaling_resize_h
    if width * height > limits.max_input_pixels:
        raise InvalidRequest("upscaling_resize", f"{width}x{height}", f"must give at most {limits.max_input_pixels} px")
    buffer = io.BytesIO()
    fit(image, width, height, "crop" if body.upscaling_crop and body.resize_mode == 1 else "stretch").save(
        buffer, "PNG"
    )
    return buffer.getvalue()
