"""The ingress' `user_config`: everything that concerns requests. It can change while Darkroom runs."""

from collections.abc import Sequence
from difflib import get_close_matches
from string import Formatter
from typing import Annotated, Literal, Self

from fsspec import available_protocols
from fsspec.core import split_protocol
from pydantic import Field, model_validator

from serve_app.config.caller_limits import AnonymousLimits
from serve_app.config.strict import Name, Positive, Seconds, Strict
from serve_app.requests.capabilities import Limits
from serve_app.requests.params import GenerationParams, SamplingParams

SafetyPolicy = Literal["off", "flag", "blur", "refuse"]


class ModelSettings(Strict):
    """The request-side settings of one model."""

    defaults: Annotated[SamplingParams, Field(description="Parameters for requests that do not give them.")] = (
        SamplingParams()
    )
    limits: Annotated[Limits, Field(description="What a request may ask for.")] = Limits()
    safety: Annotated[
        SafetyPolicy,
        Field(description="For flagged images: flag tells it in a header, blur also blurs, refuse gives an error."),
    ] = "off"
    ai_mark: Annotated[bool, Field(description="Write IPTC's mark for AI-made images into every file.")] = True
    max_waiting: Annotated[
        Positive, Field(description="The most images that wait at an ingress replica. More are answered with 429.")
    ] = 100
    deadline_s: Annotated[
        Seconds,
        Field(description="An image that would take longer, its wait included, is refused with 429, seconds."),
    ] = 600.0


class PresetConfig(GenerationParams):
    """A request that the operator has written. `{name}` in `prompt` is a variable that the caller fills in."""

    max_variable_characters: Annotated[Positive, Field(description="The longest value of a variable.")] = 200

    @property
    def variables(self) -> list[str]:
        """The template's variables, in order."""
        return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.prompt) if name))

    @model_validator(mode="after")
    def _template_is_sound(self) -> Self:
        if not self.prompt:
            raise ValueError("prompt: must be given")
        try:
            braces = [one for one in Formatter().parse(self.prompt) if one[1] is not None]
        except ValueError as error:
            raise ValueError(f"prompt: must have every brace closed ({error}), got {self.prompt!r}") from error
        if any(spec or conversion or not str(name).isidentifier() for _, name, spec, conversion in braces):
            raise ValueError(f"prompt: must have names in its braces, such as {{subject}}, got {self.prompt!r}")
        return self


class KeysConfig(Strict):
    """Who may call. `darkroom keys new NAME` makes a key and its entry in the file."""

    file: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A JSON list of hashed keys with their limits, read again when it changes. "
            "Without it anybody may call.",
        ),
    ] = None


class ResultsConfig(Strict):
    """Where images are kept that a caller asks to get as a link."""

    url: Annotated[str, Field(description="A folder or any fsspec URL, such as s3://bucket/prefix.")] = (
        "memory://darkroom-results"
    )
    max_mb: Annotated[Positive, Field(description="The most that is kept of all callers together, MB.")] = 1024
    max_mb_per_caller: Annotated[
        Positive, Field(description="The most that is kept of one caller, MB. The caller's oldest go first.")
    ] = 256
    max_age_s: Annotated[
        Seconds, Field(description="How long a link is valid, seconds. Then the image is deleted.")
    ] = 3600.0
    secret_file: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A file whose content, 32 bytes or more, signs the links. Without it, memory has a secret made "
            "at each start, and a folder has one in the file `.link-secret`. Other storage needs this file.",
        ),
    ] = None

    @property
    def scheme(self) -> str:
        """Of the storage itself, behind fsspec's chained ones: file, memory, s3 ..."""
        return split_protocol(self.url.rpartition("::")[2])[0] or "file"

    @model_validator(mode="after")
    def _storage_is_known(self) -> Self:
        scheme = self.scheme
        if scheme not in available_protocols():
            close = get_close_matches(scheme, available_protocols(), n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"url: must be a folder or begin with a scheme of fsspec{meant}, got {self.url!r}")
        if scheme not in ("file", "local", "memory") and self.secret_file is None:
            raise ValueError(f"secret_file: must be given for {scheme}: storage")
        return self


class IdempotencyConfig(Strict):
    """How long an ingress replica keeps the results of requests with an `Idempotency-Key`, for their retries."""

    max_mb: Annotated[Positive, Field(description="The most that is kept of all callers together, MB.")] = 256
    max_mb_per_caller: Annotated[
        Positive, Field(description="The most that is kept of one caller, MB. The caller's oldest go first.")
    ] = 64
    max_age_s: Annotated[Seconds, Field(description="How long a result is kept, seconds.")] = 600.0


class LogsConfig(Strict):
    """What the access log holds."""

    prompts: Annotated[bool, Field(description="Log prompts, too.")] = False


class IngressConfig(Strict):
    """The whole `user_config` of the deployment `ingress`."""

    default_model: Annotated[
        str | None, Field(description="The model of requests that name none. By default the first of `args.models`.")
    ] = None
    models: Annotated[dict[Name, ModelSettings], Field(description="Settings of each model, by its name.")] = {}
    aliases: Annotated[dict[str, str], Field(description="Other names of models, such as dall-e-3: sdxl.")] = {}
    presets: Annotated[dict[Name, PresetConfig], Field(description="Requests that callers fill in, by name.")] = {}
    keys: Annotated[KeysConfig, Field(description="Who may call.")] = KeysConfig()
    anonymous: Annotated[
        AnonymousLimits, Field(description="The limits of each address that calls without a key, where keys are off.")
    ] = AnonymousLimits()
    results: Annotated[ResultsConfig, Field(description="Images that are fetched by link.")] = ResultsConfig()
    idempotency: Annotated[
        IdempotencyConfig, Field(description="Results that are kept in memory for retries with an Idempotency-Key.")
    ] = IdempotencyConfig()
    logs: Annotated[LogsConfig, Field(description="What the access log holds.")] = LogsConfig()
    review_timeout_s: Annotated[
        Seconds, Field(description="How long the safety checker may take for one image, seconds. After it: 503.")
    ] = 30.0
    max_body_bytes: Annotated[Positive, Field(description="The largest body of a request, bytes.")] = 32 * 1024 * 1024
    max_total_body_bytes: Annotated[
        Positive, Field(description="The largest sum of the bodies that a proxy or an ingress replica holds, bytes.")
    ] = 256 * 1024 * 1024
    body_timeout_s: Annotated[Seconds, Field(description="How long a body may take to arrive, seconds.")] = 60.0
    max_preview_bytes: Annotated[
        Positive, Field(description="The most bytes of previews in one response. Its progress goes on without them.")
    ] = 32 * 1024 * 1024
    cors_origins: Annotated[tuple[str, ...], Field(description="Origins that browsers may call from.")] = ()

    def settings_of(self, model: str) -> ModelSettings:
        """The settings of one model; the defaults where the config has none."""
        return self.models.get(model, ModelSettings())

    def with_default_model(self, name: str) -> Self:
        """The config with `default_model` given: what it is, else `name`."""
        return self if self.default_model is not None else self.model_copy(update={"default_model": name})

    def find_contradictions(self, models: Sequence[str], checks_safety: bool, several_replicas: bool) -> list[str]:
        """A line for each setting that does not go with the rest of the application.

        `models` are those that are served, `checks_safety` is whether there is a safety checker, `several_replicas`
        whether there is more than one ingress.
        """
        named = {"default_model": self.default_model} if self.default_model is not None else {}
        named |= {f"models.{name}": name for name in self.models}
        named |= {f"aliases.{alias}": model for alias, model in self.aliases.items()}
        named |= {f"anonymous.models.{index}": name for index, name in enumerate(self.anonymous.models or ())}
        named |= {f"presets.{name}.model": preset.model for name, preset in self.presets.items() if preset.model}
        found = [
            f"{key}: must be one of {', '.join(models)}, got {model!r}"
            for key, model in named.items()
            if model not in models
        ]
        found += [
            f"aliases.{alias}: must not be the name of a model, got {alias!r}"
            for alias in self.aliases
            if alias in models
        ]
        for name, settings in self.models.items():
            if settings.safety != "off" and not checks_safety:
                found.append(f"models.{name}.safety: must be off without args.safety, got {settings.safety!r}")
        if several_replicas and self.results.scheme == "memory":
            found.append(f"results.url: must be storage that all ingress replicas share, got {self.results.url!r}")
        return found
