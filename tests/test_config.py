"""The configuration refuses what it does not understand; the configs we ship are understood by Ray and by us."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.app import build
from serve_app.config import AppConfig, IngressConfig, ModelConfig, SafetyConfig, Strict
from serve_app.config.gpus import count_gpus
from serve_app.config.mistakes import find_mistakes, find_unknown_keys
from serve_app.config.serve_file import find_application_mistakes, read_application, read_serve_file
from serve_app.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.parametrize(
    ("kind", "values", "mistakes"),
    [
        (ModelConfig, {}, ["source: must be given"]),
        (ModelConfig, {"source": "x", "sourc": "x"}, ["sourc: is not a key; did you mean source?"]),
        (ModelConfig, {"source": "x", "engine": {"max_rowss": 3}}, ["engine.max_rowss: is not a key; did you mean"]),
        (ModelConfig, {"source": "x", "engine": {"max_rows": 0}}, ["engine.max_rows: must be greater than 0, got 0"]),
        (ModelConfig, {"source": "x", "native_size": 100}, ["native_size: must be a multiple of 8, got 100"]),
        (
            ModelConfig,
            {"source": "x", "dtype": "float8"},
            ["dtype: must be 'auto', 'float32', 'float16' or 'bfloat16'"],
        ),
        (ModelConfig, {"source": "x", "loras": {"a b": "x"}}, ["loras.a b: must match"]),
        *(
            (ModelConfig, {"source": source, "revision": "main"}, ["revision: must go with a hub id at source, and"])
            for source in ("./here", "/models/sd", "~/sd.safetensors", "builtin:emoji")
        ),
        (ModelConfig, {"source": "a/b", "revision": "main", "vae": "c/d", "vae_revision": "v1"}, []),
        (ModelConfig, {"source": "a/b", "vae_revision": "v1"}, ["vae_revision: must go with vae: there is no hub id"]),
        (ModelConfig, {"source": "a/b", "vae": "./c", "vae_revision": "v1"}, ["vae_revision: must go with a hub id"]),
        (ModelConfig, {"source": "a/b", "preview": "/c", "preview_revision": "v1"}, ["preview_revision: must go wi"]),
        (ModelConfig, {"source": "a/b", "revision": ""}, ["revision: must match"]),
        (SafetyConfig, {"checker": "./c", "revision": "main"}, ["revision: must go with a hub id at checker, and ./c"]),
        (
            IngressConfig,
            {"models": {"m": {"limits": {"min_side": 512, "max_side": 64}, "defaults": {"guidance_scale": "x"}}}},
            ["models.m.defaults.guidance_scale: must be a valid number, got 'x'", "models.m.limits"],
        ),
        (IngressConfig, {"models": {"m": {"defaults": {"guidance_scale": float("nan")}}}}, ["models.m.defaults.guid"]),
        (IngressConfig, {"presets": {"p": {"prompt": "{a b}"}}}, ["presets.p.prompt: must have names in its braces"]),
        (IngressConfig, {"presets": {"p": {}}}, ["presets.p.prompt: must be given"]),
        (AppConfig, {"models": {}}, ["models: must have at least 1 entry, got {}"]),
        (AppConfig, {"models": {"m": {"num_gpus": 1.5}}}, ["models.m.num_gpus: must be at most 1 or a whole number"]),
        (AppConfig, {"models": {"m": {"num_gpus": -1}}}, ["models.m.num_gpus: must be at least 0, got -1"]),
        (AppConfig, {"models": ["m"]}, ["models: must be keys with values, got ['m']"]),
        (SafetyConfig, {"max_batch": 1}, ["max_batch: is not a key; did you mean max_batch_size?"]),
    ],
)
def test_each_mistake_is_a_line_with_its_key(kind: type[Strict], values: Any, mistakes: list[str]) -> None:
    found = find_mistakes(kind, values)
    assert len(found) == len(mistakes), found
    for line, mistake in zip(found, mistakes, strict=True):
        assert line.startswith(mistake)


def app(**changes: Any) -> dict[str, Any]:
    """A sound application of two models, with changes to its deployments' entries by name, or to `args`."""
    entries: dict[str, Any] = {
        "ingress": {"user_config": {"default_model": "b"}},
        "model-a": {"user_config": {"source": "x", "loras": {"style": "y"}}},
        "model-b": {"user_config": {"source": "x"}},
    }
    args = changes.pop("args", {})
    for name, entry in changes.items():
        entries[name.replace("_", "-")] = entry
    deployments = [{"name": name, **entry} for name, entry in entries.items()]
    models = {"a": {"num_gpus": 0.6}, "b": {"num_gpus": 0.6}}
    return {"import_path": "serve_app.app:build", "args": {"models": models, **args}, "deployments": deployments}


def settings(**changes: Any) -> dict[str, Any]:
    return app(ingress={"user_config": {"models": {"b": changes}}})


@pytest.mark.parametrize(
    ("application", "mistakes"),
    [
        (app(modell_a={}), ["deployments.modell-a: is not a deployment; did you mean model-a?"]),
        (app(safety={}), ["deployments.safety: is not a deployment; the keys are ingress, model-a, model-b"]),
        (app(model_a={}), ["deployments.model-a.user_config.source: must be given"]),
        (app(model_a={"user_config": None}), ["deployments.model-a.user_config.source: must be given"]),
        (app(args={"gpus": 1}), ["args.gpus: must be at least 2 for the replicas that run at start (1 x model-a 0.6"]),
        (app(args={"gpus": 2}, model_a={"num_replicas": 2, "user_config": {"source": "x"}}), ["args.gpus: must be"]),
        (
            app(args={"gpus": 1}, model_a={"autoscaling_config": {"min_replicas": 0}, "user_config": {"source": "x"}}),
            [],
        ),
        (app(args={"gpus": 1, "safety": {"num_gpus": 0.1}, "models": {"a": {}, "b": {"num_gpus": 0.9}}}), []),
        (app(ingress={"user_config": {"default_model": "c"}}), ["deployments.ingress.user_config.default_model: must"]),
        (app(ingress={"user_config": {"aliases": {"d": "c"}}}), ["deployments.ingress.user_config.aliases.d: must be"]),
        (
            app(ingress={"user_config": {"presets": {"p": {"prompt": "x", "model": "c"}}}}),
            ["deployments.ingress.user_"],
        ),
        (
            app(ingress={"user_config": {"aliases": {"b": "a"}}}),
            ["deployments.ingress.user_config.aliases.b: must not be the name of a model"],
        ),
        (app(ingress={"num_replicas": 2}), ["deployments.ingress.user_config.results.url: must be storage that all"]),
        (settings(safety="flag"), ["deployments.ingress.user_config.models.b.safety: must be off without args.safety"]),
        (
            settings(defaults={"sampler": "warp", "num_inference_steps": 200}),
            [
                "deployments.ingress.user_config.models.b.defaults.sampler: must be one of euler",
                "deployments.ingress.user_config.models.b.defaults.num_inference_steps: must be between 1 and 150",
            ],
        ),
        (
            settings(defaults={"sampler": "ddim", "scheduler": "karras"}),
            ["deployments.ingress.user_config.models.b.defaults.scheduler: must be one of automatic"],
        ),
        (
            app(model_a={"user_config": {"source": "x", "native_size": 4096}}),
            ["deployments.ingress.user_config.models.a.limits: must allow the model's native size: width must be"],
        ),
        (
            app(ingress={"user_config": {"presets": {"p": {"prompt": "x {y}", "num_images": 90}}}}),
            ["deployments.ingress.user_config.presets.p.num_images: must be between 1 and 8, got 90"],
        ),
        (
            app(ingress={"user_config": {"presets": {"p": {"prompt": "x", "loras": [{"name": "style"}]}}}}),
            [],
        ),
        (
            app(ingress={"user_config": {"presets": {"p": {"prompt": "x", "model": "b", "loras": [{"name": "z"}]}}}}),
            ["deployments.ingress.user_config.presets.p.loras: must be left out"],
        ),
    ],
)
def test_parts_that_do_not_go_together_are_found(application: dict[str, Any], mistakes: list[str]) -> None:
    found = find_application_mistakes(application)
    assert len(found) == len(mistakes), found
    for line, mistake in zip(found, mistakes, strict=True):
        assert line.startswith(mistake)


def test_all_mistakes_are_told_at_once() -> None:
    wrong = app(model_a={"user_config": {"sourc": "x"}}, ingress={"user_config": {"kees": {}}}, args={"gpu": 1})
    with pytest.raises(ConfigError) as caught:
        read_application(wrong)
    assert {line.partition(": ")[0] for line in str(caught.value).splitlines()} == {
        "args.gpu",
        "deployments.ingress.user_config.kees",
        "deployments.model-a.user_config.sourc",
        "deployments.model-a.user_config.source",
    }


def test_a_sound_application_is_read() -> None:
    config = read_application(app())
    assert list(config.app.models) == list(config.models) == ["a", "b"]
    assert config.ingress.default_model == "b"
    assert config.safety is None
    assert read_application(app(args={"safety": {}})).safety == SafetyConfig()


def test_the_ingress_share_of_a_gpu_counts() -> None:
    found = find_application_mistakes(
        app(args={"gpus": 1, "ingress": {"num_gpus": 1}, "models": {"a": {"num_gpus": 1}, "b": {}}})
    )
    assert any("args.gpus: must be at least 2" in line for line in found)


def test_a_model_that_sleeps_at_first_takes_no_gpu_at_start() -> None:
    sleeps = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 1}, "user_config": {"source": "x"}}
    models = {"a": {"num_gpus": 1}, "b": {"num_gpus": 1}}
    assert find_application_mistakes(app(args={"gpus": 1, "models": models}, model_a=sleeps)) == []
    build(AppConfig.model_validate({"models": models, "gpus": 1}))


def test_a_part_of_the_anonymous_limits_leaves_the_others() -> None:
    limits = IngressConfig.model_validate({"anonymous": {"max_images": 4}}).anonymous
    assert (limits.max_images, limits.rate, limits.burst, limits.concurrency) == (4, 200, 400, 32)


@pytest.mark.parametrize(
    ("ingress", "args", "mistake"),
    [
        ({"keys": {"file": ""}}, {}, "user_config.keys.file"),
        ({"results": {"url": "/x", "secret_file": ""}}, {}, "user_config.results.secret_file"),
        ({"anonymous": {"models": ["nobody"]}}, {}, "user_config.anonymous.models.0: must be one of a, b"),
        ({}, {"usage": {"url": "redis://host:notaport/0"}}, "args.usage.url: must be a URL"),
        ({}, {"usage": {"url": "redis://[bad:6379"}}, "args.usage.url: must be a URL"),
    ],
)
def test_what_would_fail_at_start_is_a_mistake(ingress: dict[str, Any], args: dict[str, Any], mistake: str) -> None:
    found = find_application_mistakes(app(args=args, ingress={"user_config": ingress}))
    assert len(found) == 1, found
    assert mistake in found[0]


@pytest.mark.parametrize("template", ["{a:d}", "{a:{b}}", "{a!r}", "{}", "{a", "}"])
def test_a_template_that_cannot_be_filled_is_refused(template: str) -> None:
    found = find_mistakes(IngressConfig, {"presets": {"p": {"prompt": template}}})
    assert len(found) == 1
    assert found[0].startswith("presets.p.prompt: must have ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_valid_for_ray_and_for_us(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert list(find_unknown_keys(ServeDeploySchema, document)) == []
    schema = ServeDeploySchema.model_validate(document)
    assert [application.import_path for application in schema.applications] == ["serve_app.app:build"]
    (config,) = read_serve_file(path)
    build(config.app)


def test_a_misspelt_key_that_serve_ignores_is_found() -> None:
    document = yaml.safe_load(CONFIGS[0].read_text())
    document["applications"][0]["route_prefx"] = document["htp_options"] = "/"
    document["applications"][0]["deployments"][1]["autoscaling_config"] = {"max_replica": 1}
    found = dict(find_unknown_keys(ServeDeploySchema, deepcopy(document)))
    assert list(found) == [
        "applications.darkroom.deployments.model-emoji.autoscaling_config.max_replica",
        "applications.darkroom.route_prefx",
        "htp_options",
    ]


@pytest.mark.parametrize(
    ("shares", "needed"),
    [
        ([], 0),
        ([0.25, 0.25, 0.5], 1),
        ([0.6, 0.6], 2),
        ([0.4, 0.6, 0.6, 0.4], 2),
        ([2.0, 0.5], 3),
        ([0.1] * 10, 1),
    ],
)
def test_shares_are_packed_onto_gpus(shares: list[float], needed: int) -> None:
    assert count_gpus(shares) == needed


def test_prod_pins_every_commit_that_its_page_names() -> None:
    """And no other: a commit is copied from where it was found, never made up."""
    (config,) = read_serve_file(FOLDER / "prod.yaml")
    assert config.safety is not None
    pinned = {(config.safety.checker, config.safety.revision)}
    for model in config.models.values():
        pinned |= {
            (model.source, model.revision),
            (model.vae, model.vae_revision),
            (model.preview, model.preview_revision),
        }
    page = (FOLDER.parent / "docs" / "models.md").read_text()
    named = set(re.findall(r"^\| `(\S+/\S+)` \| `([0-9a-f]{40})` \|$", page, re.MULTILINE))
    assert {one for one in pinned if one[1] is not None} == named
    assert {source for source, revision in pinned if source and not revision} == {
        "SG161222/Realistic_Vision_V6.0_B1_noVAE"
    }
