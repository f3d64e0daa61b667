"""Applications for tests, as a config file would have them."""

from pathlib import Path
from typing import Any

Section = dict[str, Any]

DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 5.0, "sampler": "euler"}
"""Of tiny models."""


def tiny_model(source: Path | str, **options: Any) -> Section:
    """The `user_config` of a tiny model's deployment."""
    return {
        "source": str(source),
        "device": "cpu",
        "native_size": 64,
        "cpu_threads": 1,
        "engine": {"max_rows": 8},
        **options,
    }


def application(
    models: dict[str, Section],
    *,
    ingress: Section | None = None,
    settings: Section | None = None,
    safety: Section | None = None,
    args: Section | None = None,
    options: dict[str, Section] | None = None,
) -> Section:
    """One entry of `applications:`.

    Args:
        models: each model's `user_config`, by name.
        ingress: the ingress' `user_config`.
        settings: of each model's request-side settings; by default `DEFAULTS`.
        safety: the `user_config` of the safety checker's deployment.
        args: more of `args`, in which `models` may replace the models' placements.
        options: more of each entry of `deployments:`, by the deployment's name.
    """
    user_configs = {f"model-{name}": model for name, model in models.items()}
    common = {"defaults": DEFAULTS}
    by_model = {name: {**common, **(settings or {}).get(name, {})} for name in models}
    user_configs["ingress"] = {"models": by_model, **(ingress or {})}
    if safety is not None:
        user_configs["safety"] = safety
    # Serve looks whether a replica is idle as often as this before it stops one: by default every 2 s.
    quick = {"graceful_shutdown_wait_loop_s": 0.1}
    return {
        "name": "darkroom",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": {"models": {name: {"num_cpus": 0.5} for name in models}, "ingress": {"num_cpus": 0.25}, **(args or {})},
        "deployments": [
            {"name": name, "user_config": user_config, **quick, **(options or {}).get(name, {})}
            for name, user_config in user_configs.items()
        ],
    }


def emoji_application(**sections: Any) -> Section:
    """The built-in model, its steps few."""
    model = tiny_model("builtin:emoji", native_size=128)
    defaults = {"num_inference_steps": 4, "guidance_scale": 4.0}
    return application({"emoji": model}, settings={"emoji": {"defaults": defaults}}, **sections)
