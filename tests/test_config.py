"""The configuration refuses what it does not understand; the configs we ship are understood by Ray and by us."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from serve_app.app import build
from serve_app.config import AppConfig, count_gpus
from serve_app.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


def args(**model: Any) -> dict[str, Any]:
    return {"default_model": "m", "models": {"m": {"source": "builtin:emoji", "native_size": 128, **model}}}


def path_of(error: ValidationError) -> str:
    return ".".join(str(part) for part in error.errors()[0]["loc"])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"sourc": "x"}, "models.m.sourc"),
        ({"engine": {"max_rowss": 3}}, "models.m.engine.max_rowss"),
        ({"engine": {"max_rows": 0}}, "models.m.engine.max_rows"),
        ({"replicas": {"num_gpus": 1.5}}, "models.m.replicas"),
        ({"replicas": {"num_gpus": -1}}, "models.m.replicas.num_gpus"),
        ({"replicas": {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}}, "models.m.replicas.autoscaling"),
        ({"limits": {"min_side": 512, "max_side": 64}}, "models.m.limits"),
        ({"limits": {"min_guidance_scale": 9, "max_guidance_scale": 1}}, "models.m.limits"),
        ({"native_size": 100}, "models.m"),
        ({"dtype": "float8"}, "models.m.dtype"),
        ({"defaults": {"guidance_scale": float("nan")}}, "models.m.defaults.guidance_scale"),
    ],
)
def test_a_mistake_is_refused_with_its_keys_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AppConfig.model_validate(args(**change))
    assert path_of(caught.value) == path


def test_the_default_model_must_be_one_of_the_models() -> None:
    with pytest.raises(ValidationError, match="default_model 'x' is none of m"):
        AppConfig.model_validate({**args(), "default_model": "x"})
    with pytest.raises(ValidationError, match="models"):
        AppConfig.model_validate({"default_model": "m", "models": {}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defaults": {"sampler": "warp"}}, "models.m.defaults.sampler: must be one of euler"),
        ({"defaults": {"sampler": "ddim", "scheduler": "karras"}}, "models.m.defaults.scheduler: must be one of auto"),
        (
            {"defaults": {"num_inference_steps": 200}},
            "defaults.num_inference_steps: must be between 1 and 150",
        ),
        ({"native_size": 4096}, "models.m.native_size: must be between 64 and 2048"),
    ],
)
def test_defaults_that_every_request_would_fall_over_are_refused_at_start(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(AppConfig.model_validate(args(**change)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_valid_for_ray_and_for_us(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    schema = ServeDeploySchema.model_validate(document)
    assert unknown_keys(document, schema) == []
    for application in schema.applications:
        assert application.import_path == "serve_app.app:build"
        build(AppConfig.model_validate(application.args))


def test_a_misspelt_key_outside_args_is_seen_by_this_test() -> None:
    document = yaml.safe_load(CONFIGS[0].read_text())
    document["applications"][0]["route_prefx"] = document["htp_options"] = "/"
    found = unknown_keys(document, ServeDeploySchema.model_validate(document))
    assert found == ["applications.0.route_prefx", "htp_options"]


def unknown_keys(document: Any, schema: Any, path: str = "") -> list[str]:
    """Keys that Ray's schema ignores, although it accepts the document."""
    if isinstance(document, list) and isinstance(schema, list):
        pairs = zip(document, schema, strict=True)
        return [key for index, (a, b) in enumerate(pairs) for key in unknown_keys(a, b, f"{path}{index}.")]
    if not isinstance(document, dict) or not isinstance(schema, BaseModel):
        return []
    found: list[str] = []
    for key, value in document.items():
        if key not in type(schema).model_fields:
            found.append(path + key)
        elif key != "args":
            found += unknown_keys(value, getattr(schema, key), f"{path}{key}.")
    return sorted(found)


@pytest.mark.parametrize(
    ("shares", "needed"),
    [
        ([], 0),
        ([0.25, 0.25, 0.5], 1),
        ([0.6, 0.6], 2),
        ([0.6, 0.6, 0.4, 0.4], 2),
        ([2.0, 0.5], 3),
        ([0.1] * 10, 1),
    ],
)
def test_shares_are_packed_onto_gpus(shares: list[float], needed: int) -> None:
    assert count_gpus(sorted(shares, reverse=True)) == needed


def test_what_must_run_at_start_has_to_fit_the_gpus() -> None:
    model = {"source": "builtin:emoji", "native_size": 128, "safety": "flag", "replicas": {"num_gpus": 0.5}}
    both = {"default_model": "a", "models": {"a": model, "b": model}, "gpus": 1}
    assert AppConfig.model_validate(both).gpus == 1
    with pytest.raises(ValidationError, match=r"gpus: 1 are given, but what runs at start needs 2: safety x0\.1"):
        AppConfig.model_validate({**both, "safety": {"num_gpus": 0.1}})
