"""`build(config)`: from one YAML's `args` to the deployment graph. The only place where parts are put together."""

from ray import serve
from ray.serve import Application

from serve_app.api.result_store import read_secret
from serve_app.config import AppConfig, ModelConfig, SafetyConfig, TracingConfig
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.replica import ModelReplica
from serve_app.deployments.safety_replica import SafetyReplica
from serve_app.errors import ConfigError, InvalidRequest
from serve_app.requests.params import GenerationParams
from serve_app.requests.resolve import resolve


def build(config: AppConfig) -> Application:
    """The application: an ingress in front of one deployment per model. Raises ConfigError naming the key's path.

    Ray reads the annotation of `config` to validate `args`; a string annotation would turn that off.
    """
    for name, model in config.models.items():
        check_defaults(name, model)
    replicas = {name: deploy_model(name, model, config.tracing) for name, model in config.models.items()}
    safety = deploy_safety(config.safety) if config.checks_safety else None
    ingress = serve.deployment(
        name="ingress",
        num_replicas=config.ingress.num_replicas,
        max_ongoing_requests=config.ingress.max_ongoing_requests,
        ray_actor_options={"num_cpus": config.ingress.num_cpus},
    )
    return ingress(Ingress).bind(config, replicas, safety, read_secret(config.results))


def deploy_model(name: str, model: ModelConfig, tracing: TracingConfig | None) -> Application:
    """One model's deployment, with its own share of GPUs, autoscaling and queue."""
    replicas = model.replicas
    deployment = serve.deployment(
        name=f"model-{name}",
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        autoscaling_config=replicas.autoscaling.model_dump(),
        graceful_shutdown_timeout_s=replicas.graceful_shutdown_timeout_s,
        health_check_period_s=replicas.health_check_period_s,
        health_check_timeout_s=replicas.health_check_timeout_s,
        max_constructor_retry_count=2,
        ray_actor_options={"num_cpus": replicas.num_cpus, "num_gpus": replicas.num_gpus},
    )
    return deployment(ModelReplica).bind(model, name, tracing)


def deploy_safety(safety: SafetyConfig) -> Application:
    """The safety checker, shared by all models."""
    deployment = serve.deployment(
        name="safety",
        max_ongoing_requests=4 * safety.max_batch_size,
        ray_actor_options={"num_cpus": safety.num_cpus, "num_gpus": safety.num_gpus},
    )
    return deployment(SafetyReplica).bind(safety)


def check_defaults(name: str, model: ModelConfig) -> None:
    """Refuse defaults that the model's own limits, or the samplers, would refuse in every request."""
    try:
        resolve(GenerationParams(prompt="check"), name, model)
    except InvalidRequest as error:
        key = "native_size" if error.field in ("width", "height") else f"defaults.{error.field}"
        raise ConfigError(f"models.{name}.{key}: {error.limit}, got {error.value!r}") from error
