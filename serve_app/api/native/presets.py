"""`/v1/presets`: requests that the operator has written, of which a caller fills in the variables."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.native.routes import GenerateResponse, respond, stream_responses, with_infotext
from serve_app.api.native.schemas import Body
from serve_app.config import PresetConfig
from serve_app.errors import InvalidRequest, NotFound
from serve_app.requests.params import GenerationParams
from serve_app.requests.resolve import resolve_all


class PresetBody(Body):
    """The template's variables, and the seed."""

    variables: Annotated[dict[str, str], Field(description="One text for each variable of the template.")] = {}
    seed: Annotated[int | None, Field(description="The same request and seed give the same image.")] = None
    num_images: Annotated[int, Field(description="How many; image i has seed + i.")] = 1


class PresetInfo(BaseModel):
    """One preset."""

    name: Annotated[str, Field(description="Its name.")]
    variables: Annotated[list[str], Field(description="What to fill in.")]
    model: Annotated[str, Field(description="The model that draws it.")]


def router(dispatcher: Dispatcher) -> APIRouter:
    """Both routes."""
    routes = APIRouter(tags=["presets"])

    @routes.get("/v1/presets")
    async def list_presets() -> list[PresetInfo]:
        """Every preset and its variables."""
        presets = dispatcher.config.presets.items()
        return [
            PresetInfo(name=name, variables=preset.variables, model=preset.model or dispatcher.config.default_model)
            for name, preset in presets
        ]

    @routes.post("/v1/presets/{name}", response_model=GenerateResponse, responses=stream_responses())
    async def draw_preset(name: str, body: PresetBody, request: Request) -> Any:
        """Draw a preset; the answer is `/v1/generate`'s."""
        preset = dispatcher.config.presets.get(name)
        if preset is None:
            raise NotFound(f"no preset is called {name}: there are {', '.join(dispatcher.config.presets) or 'none'}")
        model = dispatcher.model_name(preset.model)
        wish = fill(preset, body)
        requests = [with_infotext(one) for one in resolve_all(wish, model, dispatcher.config.models[model])]
        return await respond(dispatcher, request, requests, None, 0)

    return routes


def fill(preset: PresetConfig, body: PresetBody) -> GenerationParams:
    """The template with its variables; raises InvalidRequest for one too many or too few, or one that is markup."""
    wanted, given = set(preset.variables), set(body.variables)
    for name in sorted(wanted ^ given):
        limit = "must be given" if name in wanted else f"must be one of {', '.join(preset.variables) or 'no variables'}"
        raise InvalidRequest(f"variables.{name}", body.variables.get(name, ""), limit)
    for name, text in body.variables.items():
        if len(text) > preset.max_variable_characters or any(char in "()[]<>{}" for char in text):
            limit = f"must be plain text of at most {preset.max_variable_characters} characters, without brackets"
            raise InvalidRequest(f"variables.{name}", text, limit)
    return GenerationParams(
        preset.prompt.format(**body.variables),
        preset.negative_prompt,
        preset.width,
        preset.height,
        preset.num_inference_steps,
        preset.guidance_scale,
        sampler=preset.sampler,
        scheduler=preset.scheduler,
        seed=body.seed,
        num_images=body.num_images,
    )
