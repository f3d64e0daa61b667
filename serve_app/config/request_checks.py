"""Request-side settings tried out: defaults and presets that a model would refuse in every request."""

from collections.abc import Iterator

from serve_app.config.ingress_config import IngressConfig, PresetConfig
from serve_app.errors import InvalidRequest
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.params import GenerationParams, SamplingParams
from serve_app.requests.resolve import resolve, resolve_sampling

SIZES = ("width", "height")


def find_unusable_settings(config: IngressConfig, name: str, model: ModelCapabilities) -> list[str]:
    """A line for each default, and for each preset of the model called `name`, that `model` would refuse.

    `model` is what the checkpoint can do, without the operator's settings. A line begins with the key in the ingress'
    `user_config`.
    """
    settings = config.settings_of(name)
    defaults = settings.defaults
    found = []
    while True:
        known = model.with_settings(defaults, settings.limits, settings.ai_mark)
        error = _refusal(GenerationParams(prompt="x"), name, known)
        if error is None:
            break
        if error.field in SIZES:
            text = f"models.{name}.limits: must allow the model's native size: {error.field} {error.limit}"
            return [*found, f"{text}, got {model.native_size}"]
        found.append(f"models.{name}.defaults.{error}")
        if error.field not in defaults.model_fields_set:
            return found
        # The next mistake shows once this one is out of the way.
        kept = defaults.model_fields_set - {error.field}
        defaults = SamplingParams(**{field: getattr(defaults, field) for field in kept})
    return found or [line for preset in config.presets for line in _find_in_preset(config, preset, name, known)]


def find_impossible_defaults(config: IngressConfig, name: str) -> list[str]:
    """A line where no checkpoint could follow the defaults of the model called `name`, whatever it is."""
    settings = config.settings_of(name)
    known = ModelCapabilities().with_settings(settings.defaults, settings.limits, settings.ai_mark)
    try:
        resolve_sampling(GenerationParams(prompt="x"), known)
    except InvalidRequest as error:
        return [f"models.{name}.defaults.{error}"]
    return []


def _find_in_preset(config: IngressConfig, preset_name: str, name: str, model: ModelCapabilities) -> Iterator[str]:
    preset = config.presets[preset_name]
    if (preset.model or config.default_model) == name:
        error = _refusal(params_of(preset), name, model)
        if error is not None:
            yield f"presets.{preset_name}.{error}"


def params_of(preset: PresetConfig) -> GenerationParams:
    """The preset as a request; its prompt still holds the variables."""
    own = set(PresetConfig.model_fields) - set(GenerationParams.model_fields)
    return GenerationParams(**preset.model_dump(include=preset.model_fields_set - own))


def _refusal(params: GenerationParams, name: str, model: ModelCapabilities) -> InvalidRequest | None:
    try:
        resolve(params, name, model)
    except InvalidRequest as error:
        return error
    return None
