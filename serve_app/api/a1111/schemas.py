"""Bodies and responses of AUTOMATIC1111's API. Fields with no effect are accepted, and their descriptions say so."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.errors import InvalidRequest

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def is_plain(value: object) -> bool:
    """Whether JSON in UTF-8 can hold `value`: it has no NaN, no infinity and no half of a surrogate pair."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(is_plain(one) for pair in value.items() for one in pair)
    return all(map(is_plain, value)) if isinstance(value, list) else True


class A1111Txt2ImgBody(BaseModel):
    """The body of `POST /sdapi/v1/txt2img`. Unknown fields have no effect and are returned in `parameters`."""

    model_config = ConfigDict(extra="allow")

    prompt: Annotated[
        str,
        Field(description="What the image shows. (word:1.2), [word], BREAK and <lora:name:0.8> have their meaning."),
    ] = ""
    negative_prompt: Annotated[str, Field(description="What the image must not show.")] = ""
    styles: Annotated[list[str], Field(description="Names of presets, whose prompts are added.")] = []
    seed: Annotated[int, Field(description="Seed of the first image; image i has seed + i. -1 is a random seed.")] = -1
    subseed: Annotated[int, Field(description="Variation seed. -1 is a random seed.")] = -1
    subseed_strength: Annotated[
        FiniteFloat, Field(description="How far the noise moves towards the variation seed's, from 0 to 1.")
    ] = 0.0
    sampler_name: Annotated[str | None, Field(description="Sampler, such as Euler a or DPM++ 2M Karras.")] = None
    sampler_index: Annotated[str | None, Field(description="The older name of sampler_name.")] = None
    scheduler: Annotated[str | None, Field(description="Noise schedule, by its name or label.")] = None
    batch_size: Annotated[int, Field(ge=1, le=1000, description="Number of images, multiplied by n_iter.")] = 1
    n_iter: Annotated[int, Field(ge=1, le=1000, description="Number of images, multiplied by batch_size.")] = 1
    steps: Annotated[int | None, Field(description="Number of denoising steps.")] = None
    cfg_scale: Annotated[FiniteFloat | None, Field(description="Guidance scale. Guidance is off up to 1.")] = None
    width: Annotated[int | None, Field(description="Width in pixels.")] = None
    height: Annotated[int | None, Field(description="Height in pixels.")] = None
    enable_hr: Annotated[bool, Field(description="Add a second pass at a larger size.")] = False
    denoising_strength: Annotated[
        FiniteFloat | None,
        Field(description="How much of the image (img2img) or of the first pass (hires) is changed, from 0 to 1."),
    ] = None
    hr_scale: Annotated[FiniteFloat, Field(description="Size of the second pass as a factor.")] = 2.0
    hr_upscaler: Annotated[
        str | None, Field(description="Upscaler of the second pass: Latent (bilinear) or Lanczos.")
    ] = None
    hr_second_pass_steps: Annotated[
        int, Field(description="Steps of the second pass. 0 means as many as the first pass has.")
    ] = 0
    hr_resize_x: Annotated[int, Field(description="Width of the second pass in pixels. 0 means by hr_scale.")] = 0
    hr_resize_y: Annotated[int, Field(description="Height of the second pass in pixels. 0 means by hr_scale.")] = 0
    override_settings: Annotated[
        dict[str, Any], Field(description="sd_model_checkpoint and CLIP_stop_at_last_layers have an effect.")
    ] = {}
    force_task_id: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9()._-]{1,64}$", description="Name of the request, for /internal/progress."),
    ] = None
    send_images: Annotated[bool, Field(description="Return the images in the response.")] = True
    script_name: Annotated[str | None, Field(description="Not available: must be left out.")] = None
    alwayson_scripts: Annotated[dict[str, Any], Field(description="Not available: must be empty.")] = {}
    tiling: Annotated[bool | None, Field(description="Not available: must be false.")] = None
    restore_faces: Annotated[bool | None, Field(description="Not available: must be false.")] = None
    save_images: Annotated[bool, Field(description="Accepted without effect: the server keeps no images.")] = False

    @model_validator(mode="before")
    @classmethod
    def _can_be_returned(cls, values: Any) -> Any:
        """The response repeats every field, unknown ones too. Raises InvalidRequest where JSON cannot hold one."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if not is_plain([name, value]):
                raise InvalidRequest(name, ascii(value), "must be valid Unicode text and finite numbers")
        return values


class A1111Img2ImgBody(A1111Txt2ImgBody):
    """The body of `POST /sdapi/v1/img2img`."""

    init_images: Annotated[list[str], Field(description="One image, base64 or data URL.")] = []
    resize_mode: Annotated[
        int, Field(ge=0, le=3, description="How the image gets its new size: 0 stretch, 1 crop, 2 fill.")
    ] = 0
    mask: Annotated[str | None, Field(description="Mask, base64 or data URL. White is changed, black is kept.")] = None
    mask_blur: Annotated[int, Field(ge=0, le=64, description="Radius in pixels by which the mask is blurred.")] = 4
    inpainting_fill: Annotated[
        int,
        Field(ge=0, le=1, description="What is under the mask at first: 0 the colours around it, 1 the original."),
    ] = 0
    inpaint_full_res: Annotated[bool | int, Field(description="Generate only the masked region, at the full size.")] = (
        False
    )
    inpaint_full_res_padding: Annotated[int, Field(ge=0, description="Padding of the masked region in pixels.")] = 0
    inpainting_mask_invert: Annotated[int, Field(description="1 inverts the mask.")] = 0
    include_init_images: Annotated[bool, Field(description="Return the sent images in `parameters`.")] = False


class A1111ImagesResponse(BaseModel):
    """The images, the request, and what is known about each image."""

    images: Annotated[list[str], Field(description="The files, base64 without a prefix.")]
    parameters: Annotated[dict[str, Any], Field(description="The request as it was sent.")]
    info: Annotated[str, Field(description="JSON as a string: seeds, infotexts and parameters of the images.")]


class ProgressState(BaseModel):
    """The state of a job."""

    skipped: Annotated[bool, Field(description="Always false.")] = False
    interrupted: Annotated[bool, Field(description="Always false.")] = False
    stopping_generation: Annotated[bool, Field(description="Always false.")] = False
    job: Annotated[str, Field(description="The name of the task.")] = ""
    job_count: Annotated[int, Field(description="1 while a task runs or waits.")] = 0
    job_timestamp: Annotated[str, Field(description="Always 0.")] = "0"
    job_no: Annotated[int, Field(description="Always 0.")] = 0
    sampling_step: Annotated[int, Field(description="Model calls that are done.")] = 0
    sampling_steps: Annotated[int, Field(description="All model calls of the image.")] = 0


class ProgressResponse(BaseModel):
    """The response of `GET /sdapi/v1/progress`."""

    progress: Annotated[float, Field(description="Progress from 0 to 1.")]
    eta_relative: Annotated[float, Field(description="Estimated seconds that are left.")]
    state: Annotated[ProgressState, Field(description="The state of the job.")]
    current_image: Annotated[str | None, Field(description="A preview of the image, base64.")] = None
    textinfo: Annotated[str | None, Field(description="Always null.")] = None


class TaskProgressBody(BaseModel):
    """The body of `POST /internal/progress`."""

    id_task: Annotated[str, Field(max_length=64, description="The request's force_task_id.")]
    id_live_preview: Annotated[int, Field(description="Accepted without effect.")] = -1
    live_preview: Annotated[bool, Field(description="Return a preview.")] = True


class TaskProgressResponse(BaseModel):
    """The progress of one task."""

    active: Annotated[bool, Field(description="The task is running.")]
    queued: Annotated[bool, Field(description="The task is waiting for its first step.")]
    completed: Annotated[bool, Field(description="The task is neither running nor waiting.")]
    progress: Annotated[float | None, Field(description="Progress from 0 to 1.")] = None
    eta: Annotated[float | None, Field(description="Estimated seconds that are left.")] = None
    live_preview: Annotated[str | None, Field(description="A preview of the image, as a data URL.")] = None
    id_live_preview: Annotated[int | None, Field(description="The step that the preview shows.")] = None
    textinfo: Annotated[str | None, Field(description="The number of tasks before it, while it waits.")] = None


class PngInfoBody(BaseModel):
    """The body of `POST /sdapi/v1/png-info`."""

    image: Annotated[str, Field(description="The image file, base64 or data URL.")]


class PngInfoResponse(BaseModel):
    """The infotext of a file, as text and by field."""

    info: Annotated[str, Field(description="The infotext; empty where the file has none.")]
    items: Annotated[dict[str, Any], Field(description="The text chunks of the file.")]
    parameters: Annotated[dict[str, Any], Field(description="The fields of the infotext.")]


class UpscaleBody(BaseModel):
    """The body of `POST /sdapi/v1/extra-single-image`."""

    image: Annotated[str, Field(description="The image file, base64 or data URL.")]
    resize_mode: Annotated[int, Field(ge=0, le=1, description="0 scales by a factor, 1 to a size.")] = 0
    upscaling_resize: Annotated[float, Field(gt=0, le=8, description="Factor, with resize_mode 0.")] = 2.0
    upscaling_resize_w: Annotated[int, Field(gt=0, description="Width in pixels, with resize_mode 1.")] = 512
    upscaling_resize_h: Annotated[int, Field(gt=0, description="Height in pixels, with resize_mode 1.")] = 512
    upscaling_crop: Annotated[bool, Field(description="Crop instead of stretching, with resize_mode 1.")] = True
    upscaler_1: Annotated[str, Field(description="None or Lanczos; both scale with Lanczos.")] = "Lanczos"


class UpscaleResponse(BaseModel):
    """The larger image."""

    html_info: Annotated[str, Field(description="Always empty.")]
    image: Annotated[str, Field(description="The larger image: a PNG file, base64.")]
