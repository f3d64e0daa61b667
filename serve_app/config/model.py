"""A model deployment's `user_config`: its checkpoint, how it is loaded, and how its engine batches."""

from typing import Annotated, Literal

from pydantic import Field

from serve_app.config.strict import Name, Positive, Seconds, Strict

Family = Literal["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl"]
Tile = Annotated[int, Field(ge=64, multiple_of=8, description="Decode larger images in tiles of this many pixels.")]


class EngineConfig(Strict):
    """How one replica batches."""

    max_rows: Annotated[
        Positive | None,
        Field(description="The most UNet rows of a step; a guided image takes two. By default measured at warm-up."),
    ] = None
    deterministic: Annotated[
        bool,
        Field(description="Pad forwards to bucket_rows, encode and decode one by one: images are bit-identical."),
    ] = False
    bucket_rows: Annotated[Positive, Field(description="UNet rows of every forward in deterministic mode.")] = 8
    encode_batch: Annotated[Positive, Field(description="The most prompts that are encoded at once.")] = 16
    decode_batch: Annotated[Positive, Field(description="Rows of every VAE decode: a result depends on the batch.")] = 1
    prompt_cache_mb: Annotated[
        Positive, Field(description="Encoded prompts are kept up to this size, MB of the device's memory.")
    ] = 256
    image_threads: Annotated[Positive, Field(description="Threads that write image files.")] = 2
    stall_seconds: Annotated[Seconds, Field(description="A replica that does not move for so long is replaced.")] = (
        120.0
    )
    resume_interval_s: Annotated[
        Seconds, Field(description="Seconds of work between two resume points: what the death of a replica can cost.")
    ] = 1.0


class ModelConfig(Strict):
    """The whole `user_config` of the deployment `model-NAME`. Requests' defaults and limits are the ingress'."""

    source: Annotated[
        str,
        Field(
            min_length=1, description="builtin:emoji, a diffusers directory, a single .safetensors file, or a hub id."
        ),
    ]
    revision: Annotated[str | None, Field(description="The hub revision.")] = None
    variant: Annotated[str | None, Field(description="The variant of the weights' files, such as fp16.")] = None
    family: Annotated[Family | None, Field(description="Only for a single file that does not tell.")] = None
    config: Annotated[
        str | None, Field(description="A diffusers directory with the shapes of an unusual single file.")
    ] = None
    prediction_type: Annotated[
        Literal["epsilon", "v_prediction", "sample"] | None,
        Field(description="Overrides the checkpoint's scheduler config."),
    ] = None
    vae: Annotated[str | None, Field(description="Another VAE's source.")] = None
    preview: Annotated[
        str | None, Field(description="An AutoencoderTiny for previews. By default a linear map fitted to the VAE.")
    ] = None
    vae_tile: Tile | None = None
    loras: Annotated[dict[Name, str], Field(description="LoRAs by name: .safetensors files.")] = {}
    embeddings: Annotated[dict[Name, str], Field(description="Textual inversions by name: .safetensors files.")] = {}
    lora_cache_mb: Annotated[Positive, Field(description="LoRAs stay loaded up to this size, MB.")] = 1024
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Field(description="Where it runs.")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"], Field(description="auto is float16 on CUDA, else float32.")
    ] = "auto"
    allow_pickle: Annotated[bool, Field(description="Also load pickled weights, which can run code.")] = False
    executor: Annotated[
        Literal["eager", "compiled", "openvino"],
        Field(description="What runs the UNet: torch, torch.compile or OpenVINO."),
    ] = "eager"
    channels_last: Annotated[bool, Field(description="Lay tensors out channels last.")] = False
    cpu_threads: Annotated[Positive | None, Field(description="Threads on a CPU. By default every core.")] = None
    native_size: Annotated[
        Annotated[int, Field(gt=0, multiple_of=8)],
        Field(description="The side of the square that the model generates best, pixels. Larger requests are resized."),
    ] = 512
    engine: Annotated[EngineConfig, Field(description="How a replica batches.")] = EngineConfig()
