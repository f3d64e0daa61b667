"""What AUTOMATIC1111's `/sdapi/v1` takes and gives. Fields that change nothing here are taken, and told apart."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]


class A1111Txt2ImgBody(BaseModel):
    """`POST /sdapi/v1/txt2img`. Unknown fields are echoed and ignored, as there; what is not available is refused."""

    model_config = ConfigDict(extra="allow")

    prompt: Annotated[
        str, Field(description="What to draw; (word:1.2), [word], BREAK and <lora:name:0.8> are read.")
    ] = ""
    negative_prompt: Annotated[str, Field(description="What to keep out.")] = ""
    styles: Annotated[list[str], Field(description="Names of presets.")] = []
    seed: Annotated[int, Field(description="-1 draws one; image i has seed + i.")] = -1
    subseed: Annotated[int, Field(description="Variation seed; -1 draws one.")] = -1
    subseed_strength: Annotated[
        Number, Field(description="How far the noise moves towards the variation seed, 0 to 1.")
    ] = 0.0
    sampler_name: Annotated[str | None, Field(description="Such as Euler a, or DPM++ 2M Karras.")] = None
    sampler_index: Annotated[str | None, Field(description="The older name of sampler_name.")] = None
    scheduler: Annotated[str | None, Field(description="Noise schedule, by name or label.")] = None
    batch_size: Annotated[int, Field(description="Images at once; times n_iter is how many are drawn.")] = 1
    n_iter: Annotated[int, Field(description="Batches.")] = 1
    steps: Annotated[int | None, Field(description="Denoising steps.")] = None
    cfg_scale: Annotated[Number | None, Field(description="Guidance scale; 1 and less is off.")] = None
    width: Annotated[int | None, Field(description="Pixels.")] = None
    height: Annotated[int | None, Field(description="Pixels.")] = None
    enable_hr: Annotated[bool, Field(description="Draw a second pass at a larger size.")] = False
    denoising_strength: Annotated[
        Number | None, Field(description="How much is drawn anew, 0 to 1, of the image or in the second pass.")
    ] = None
    hr_scale: Annotated[Number, Field(description="The second pass, times the size.")] = 2.0
    hr_upscaler: Annotated[str | None, Field(description="Latent (bilinear) or Lanczos.")] = None
    hr_second_pass_steps: Annotated[int, Field(description="0 is as many as in the first pass.")] = 0
    hr_resize_x: Annotated[int, Field(description="The second pass, pixels; 0 is by hr_scale.")] = 0
    hr_resize_y: Annotated[int, Field(description="The second pass, pixels; 0 is by hr_scale.")] = 0
    override_settings: Annotated[
        dict[str, Any], Field(description="sd_model_checkpoint and CLIP_stop_at_last_layers are read.")
    ] = {}
    force_task_id: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9()._-]{1,64}$", description="Names the request, for /internal/progress.")
    ] = None
    send_images: Annotated[bool, Field(description="Whether the answer holds the images.")] = True
    script_name: Annotated[str | None, Field(description="Refused where given.")] = None
    alwayson_scripts: Annotated[dict[str, Any], Field(description="Refused where given.")] = {}
    tiling: Annotated[bool | None, Field(description="Refused where true.")] = None
    restore_faces: Annotated[bool | None, Field(description="Refused where true.")] = None
    save_images: Annotated[bool, Field(description="Ignored: nothing is kept on the server.")] = False


class A1111Img2ImgBody(A1111Txt2ImgBody):
    """`POST /sdapi/v1/img2img`."""

    init_images: Annotated[list[str], Field(description="One image, base64 or data URL.")] = []
    resize_mode: Annotated[
        int, Field(ge=0, le=3, description="0 stretch, 1 crop, 2 fill; or 0 by factor, 1 to a size.")
    ] = 0
    mask: Annotated[str | None, Field(description="White is repainted; base64 or data URL.")] = None
    mask_blur: Annotated[int, Field(ge=0, le=64, description="Pixels.")] = 4
    inpainting_fill: Annotated[
        int,
        Field(ge=0, le=1, description="What is under the mask at the start: 0 the colours around it, 1 the original."),
    ] = 0
    inpaint_full_res: Annotated[bool | int, Field(description="Draw the masked region only, at the full size.")] = False
    inpaint_full_res_padding: Annotated[int, Field(description="Pixels around the masked region.")] = 0
    inpainting_mask_invert: Annotated[int, Field(description="1 repaints what is black.")] = 0
    include_init_images: Annotated[bool, Field(description="Echo the images in parameters.")] = False


class A1111ImagesResponse(BaseModel):
    """Base64 images without prefix, the request again, and JSON about each image as a string."""

    images: Annotated[list[str], Field(description="Base64, without a prefix.")]
    parameters: Annotated[dict[str, Any], Field(description="The request, or the fields of an infotext.")]
    info: Annotated[str, Field(description="JSON in a string, or an infotext.")]


class ProgressState(BaseModel):
    """Where a job is."""

    skipped: Annotated[bool, Field(description="Always false.")] = False
    interrupted: Annotated[bool, Field(description="Always false.")] = False
    stopping_generation: Annotated[bool, Field(description="Always false.")] = False
    job: Annotated[str, Field(description="The task.")] = ""
    job_count: Annotated[int, Field(description="1 while something is drawn.")] = 0
    job_timestamp: Annotated[str, Field(description="Always 0.")] = "0"
    job_no: Annotated[int, Field(description="Always 0.")] = 0
    sampling_step: Annotated[int, Field(description="Model calls done.")] = 0
    sampling_steps: Annotated[int, Field(description="Model calls in all.")] = 0


class ProgressResponse(BaseModel):
    """`GET /sdapi/v1/progress`."""

    progress: Annotated[float, Field(description="0 to 1.")]
    eta_relative: Annotated[float, Field(description="Seconds left.")]
    state: Annotated[ProgressState, Field(description="Where the job is.")]
    current_image: Annotated[str | None, Field(description="A preview, base64.")] = None
    textinfo: Annotated[str | None, Field(description="Always null.")] = None


class TaskProgressBody(BaseModel):
    """`POST /internal/progress`."""

    id_task: Annotated[str, Field(max_length=64, description="The force_task_id.")]
    id_live_preview: Annotated[int, Field(description="The step that the preview shows.")] = -1
    live_preview: Annotated[bool, Field(description="Whether a preview is wanted; or the preview, a data URL.")] = True


class TaskProgressResponse(BaseModel):
    """One task's progress."""

    active: Annotated[bool, Field(description="It is being drawn.")]
    queued: Annotated[bool, Field(description="It waits for its first step.")]
    completed: Annotated[bool, Field(description="It is neither drawn nor waiting.")]
    progress: Annotated[float | None, Field(description="0 to 1.")] = None
    eta: Annotated[float | None, Field(description="Seconds left.")] = None
    live_preview: Annotated[
        str | None, Field(description="Whether a preview is wanted; or the preview, a data URL.")
    ] = None
    id_live_preview: Annotated[int | None, Field(description="The step that the preview shows.")] = None
    textinfo: Annotated[str | None, Field(description="How many are before it, while it waits.")] = None


class PngInfoBody(BaseModel):
    """`POST /sdapi/v1/png-info`."""

    image: Annotated[str, Field(description="Base64 or data URL.")]


class PngInfoResponse(BaseModel):
    """The infotext of a file, whole and by field."""

    info: Annotated[str, Field(description="JSON in a string, or an infotext.")]
    items: Annotated[dict[str, Any], Field(description="What the file holds.")]
    parameters: Annotated[dict[str, Any], Field(description="The request, or the fields of an infotext.")]


class UpscaleBody(BaseModel):
    """`POST /sdapi/v1/extra-single-image`."""

    image: Annotated[str, Field(description="Base64 or data URL.")]
    resize_mode: Annotated[
        int, Field(ge=0, le=1, description="0 stretch, 1 crop, 2 fill; or 0 by factor, 1 to a size.")
    ] = 0
    upscaling_resize: Annotated[float, Field(gt=0, le=8, description="Times the size, in resize_mode 0.")] = 2.0
    upscaling_resize_w: Annotated[int, Field(gt=0, description="Pixels, in resize_mode 1.")] = 512
    upscaling_resize_h: Annotated[int, Field(gt=0, description="Pixels, in resize_mode 1.")] = 512
    upscaling_crop: Annotated[bool, Field(description="Crop what overhangs, in resize_mode 1.")] = True
    upscaler_1: Annotated[str, Field(description="None or Lanczos.")] = "Lanczos"


class UpscaleResponse(BaseModel):
    """The larger picture."""

    html_info: Annotated[str, Field(description="Always empty.")]
    image: Annotated[str, Field(description="Base64 or data URL.")]
