"""`build(config)`: from an application's `args` to the deployment graph. Only here are parts put together."""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from serve_app.config import AppConfig, Placement
from serve_app.config.names import INGRESS, SAFETY, deployment_of
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.replica import ModelReplica
from serve_app.deployments.safety_replica import SafetyReplica

STOP_OPTIONS: Mapping[str, Any] = {"graceful_shutdown_wait_loop_s": 0.25}
"""How often a stopping replica looks whether it is idle. With Serve's 2 s an idle one takes that long to stop."""
INGRESS_GRACE_SECONDS = 660
"""How long a stopping ingress replica may take to answer what it has accepted: a default deadline, and a minute."""
HEALTH_CHECK_SECONDS = 2
"""A replica that was killed is missed, and replaced, after so long."""
MODEL_OPTIONS: Mapping[str, Any] = {
    **STOP_OPTIONS,
    "num_replicas": 1,
    "max_ongoing_requests": 1000,
    "max_queued_requests": -1,
    "request_router_config": {"request_router_class": "serve_app.deployments.pinned_router:PinnedRouter"},
    "graceful_shutdown_timeout_s": 120,
    "health_check_period_s": HEALTH_CHECK_SECONDS,
    "health_check_timeout_s": 30,
}
"""Serve's options of a model's deployment, where the config file gives none.

The ingress has the queue, and gives a replica only what that can use: Serve's own limits are a fuse far above that.
"""


def build(config: AppConfig) -> Application:
    """The application: an ingress in front of a deployment for each model.

    The entries of `deployments:` in the config file replace the options given here, in Serve's own words. Each
    deployment has a `user_config`, even if empty: Serve calls `reconfigure` only then.

    Ray reads the annotation of `config` to validate `args`. A string annotation would turn that off. Whether the
    shares fit `gpus` depends on `deployments:`, which Serve does not show here: `darkroom check` and `serve` tell.
    """
    replicas = {name: deploy_model(name, placement, config) for name, placement in config.models.items()}
    safety = deploy_safety(config.safety) if config.safety else None
    deployment = serve.deployment(
        name=INGRESS,
        **STOP_OPTIONS,
        num_replicas=1,
        max_ongoing_requests=1000,
        graceful_shutdown_timeout_s=INGRESS_GRACE_SECONDS,
        health_check_period_s=HEALTH_CHECK_SECONDS,
        user_config={},
        ray_actor_options=resources(config.ingress),
    )
    return deployment(Ingress).bind(replicas, safety, config.usage, config.tracing)


def deploy_model(name: str, placement: Placement, config: AppConfig) -> Application:
    """One model's deployment."""
    deployment = serve.deployment(
        name=deployment_of(name),
        **MODEL_OPTIONS,
        max_constructor_retry_count=2,
        user_config={},
        ray_actor_options=resources(placement),
    )
    return deployment(ModelReplica).bind(name, config.tracing, config.usage)


def deploy_safety(placement: Placement) -> Application:
    """The safety checker, shared by all models."""
    deployment = serve.deployment(
        name=SAFETY,
        **STOP_OPTIONS,
        max_ongoing_requests=32,
        health_check_period_s=HEALTH_CHECK_SECONDS,
        user_config={},
        ray_actor_options=resources(placement),
    )
    return deployment(SafetyReplica).bind()


def resources(placement: Placement) -> dict[str, Any]:
    """What Ray reserves for each replica."""
    return {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus}
