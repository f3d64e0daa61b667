"""What AUTOMATIC1111's `/sdapi/v1` takes and gives. Fields that change nothing here are taken, and told apart."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]


class Txt2ImgBody(BaseModel):
    """`POST /sdapi/v1/txt2img`. Unknown fields are ignored, as there."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] = []
    seed: int = -1
    subseed: int = -1
    subseed_strength: Number = 0.0
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int | None = None
    cfg_scale: Number | None = None
    width: int | None = None
    height: int | None = None
    enable_hr: bool = False
    denoising_strength: Number | None = None
    hr_scale: Number = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    override_settings: dict[str, Any] = {}
    force_task_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9()._-]{1,64}$")] = None
    send_images: bool = True
    script_name: str | None = None
    alwayson_scripts: dict[str, Any] = {}
    tiling: bool | None = None
    restore_faces: bool | None = None
    save_images: Annotated[bool, Field(description="Ignored: nothing is kept on the server.")] = False


class Img2ImgBody(Txt2ImgBody):
    """`POST /sdapi/v1/img2img`."""

    init_images: list[str] = []
    resize_mode: Annotated[int, Field(ge=0, le=3)] = 0
    mask: str | None = None
    mask_blur: Annotated[int, Field(ge=0, le=64)] = 4
    inpainting_fill: int = 1
    inpaint_full_res: bool | int = False
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    include_init_images: bool = False


class ImagesResponse(BaseModel):
    """Base64 images without prefix, the request again, and JSON about each image as a string."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class ProgressState(BaseModel):
    """Where a job is."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressResponse(BaseModel):
    """`GET /sdapi/v1/progress`."""

    progress: float
    eta_relative: float
    state: ProgressState
    current_image: str | None = None
    textinfo: str | None = None


class TaskProgressBody(BaseModel):
    """`POST /internal/progress`."""

    id_task: Annotated[str, Field(max_length=64)]
    id_live_preview: int = -1
    live_preview: bool = True


class TaskProgressResponse(BaseModel):
    """One task's progress."""

    active: bool
    queued: bool
    completed: bool
    progress: float | None = None
    eta: float | None = None
    live_preview: str | None = None
    id_live_preview: int | None = None
    textinfo: str | None = None


class PngInfoBody(BaseModel):
    """`POST /sdapi/v1/png-info`."""

    image: str


class PngInfoResponse(BaseModel):
    """The infotext of a file, whole and by field."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


class UpscaleBody(BaseModel):
    """`POST /sdapi/v1/extra-single-image`."""

    image: str
    resize_mode: Annotated[int, Field(ge=0, le=1)] = 0
    upscaling_resize: Annotated[float, Field(gt=0, le=8)] = 2.0
    upscaling_resize_w: Annotated[int, Field(gt=0)] = 512
    upscaling_resize_h: Annotated[int, Field(gt=0)] = 512
    upscaling_crop: bool = True
    upscaler_1: str = "Lanczos"


class UpscaleResponse(BaseModel):
    """The larger picture."""

    html_info: str
    image: str
