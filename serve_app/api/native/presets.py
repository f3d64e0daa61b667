"""`/v1/presets`: requests that the operator has written, and of which a caller fills in the variables."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.native.routes import generate_response
from serve_app.api.native.schemas import STREAM_RESPONSES, GenerateResponse, PresetBody, PresetItem
from serve_app.api.pooled_route import PooledRoute
from serve_app.api.prompt_templates import fill_template
from serve_app.api.usage import Admission
from serve_app.config import PresetConfig
from serve_app.errors import InvalidRequest, NotFound, shorten
from serve_app.requests.params import GenerationParams

PRESET_LINKS = {
    "generate": {
        "operationId": "generate_preset_v1_presets__name__post",
        "parameters": {"name": "$response.body#/0/name"},
        "description": "Generates from the first preset.",
    }
}
"""Where the list leads, for OpenAPI."""


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=PooledRoute, tags=["presets"])

    @routes.get("/v1/presets", responses={200: {"links": PRESET_LINKS}})
    async def list_presets() -> list[PresetItem]:
        """Every preset and its variables."""
        return [
            PresetItem(name=name, variables=preset.variables, model=dispatcher.model_name(preset.model))
            for name, preset in dispatcher.config.presets.items()
        ]

    @routes.post("/v1/presets/{name}", response_model=GenerateResponse, responses=STREAM_RESPONSES)
    async def generate_preset(
        name: str,
        body: PresetBody,
        request: Request,
        admission: Annotated[Admission, Depends(dispatcher.drawing)],
    ) -> Any:
        """Generate from a preset. The response is that of `/v1/generate`."""
        presets = dispatcher.config.presets
        if name not in presets:
            raise NotFound(f"there is no preset {shorten(name)}: the presets are {', '.join(presets) or 'none'}")
        preset = presets[name]
        limits = dispatcher.config.settings_of(dispatcher.model_name(preset.model)).limits
        params = fill(preset, body, limits.max_prompt_characters)
        await admission.admit(params.model, params.num_images)
        return await generate_response(
            dispatcher, request, admission, await dispatcher.resolve(admission, params), None, 0
        )

    return routes


def fill(preset: PresetConfig, body: PresetBody, max_characters: int) -> GenerationParams:
    """The preset with its variables filled in; `max_characters` is the model's longest prompt.

    Raises:
        InvalidRequest: a variable is missing, unknown, too long, or holds markup; or together they are too long.
    """
    wanted, given = set(preset.variables), set(body.variables)
    for name in sorted(wanted ^ given):
        limit = "must be given" if name in wanted else f"must be one of {', '.join(preset.variables) or 'no variables'}"
        raise InvalidRequest(f"variables.{name}", body.variables.get(name, ""), limit)
    for name, text in body.variables.items():
        if len(text) > preset.max_variable_characters or any(char in "()[]<>{}" for char in text):
            limit = f"must be plain text of at most {preset.max_variable_characters} characters, without brackets"
            raise InvalidRequest(f"variables.{name}", text, limit)
    values = preset.model_dump(include=preset.model_fields_set - {"max_variable_characters"})
    values |= {name: getattr(body, name) for name in ("seed", "num_images") if name in body.model_fields_set}
    prompt = fill_template(preset.prompt, body.variables, max_characters, "variables")
    return GenerationParams.checked(**{**values, "prompt": prompt})
