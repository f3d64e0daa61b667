"""What the Serve config file may say: `args` of the application and the `user_config` of each deployment.

Nothing here loads a model or reads a request. Darkroom has no environment variables of its own; `ray_environment.py`
has those that Ray must be started with.
"""

from serve_app.config.application import AppConfig, Placement, SafetyConfig, TracingConfig, UsageConfig
from serve_app.config.caller_limits import CallerLimits
from serve_app.config.edge_settings import EdgeSettings
from serve_app.config.ingress_config import (
    IdempotencyConfig,
    IngressConfig,
    KeysConfig,
    LogsConfig,
    ModelSettings,
    PresetConfig,
    ResultsConfig,
    SafetyPolicy,
)
from serve_app.config.model import EngineConfig, ModelConfig
from serve_app.config.strict import Strict

__all__ = [
    "AppConfig",
    "CallerLimits",
    "EdgeSettings",
    "EngineConfig",
    "IdempotencyConfig",
    "IngressConfig",
    "KeysConfig",
    "LogsConfig",
    "ModelConfig",
    "ModelSettings",
    "Placement",
    "PresetConfig",
    "ResultsConfig",
    "SafetyConfig",
    "SafetyPolicy",
    "Strict",
    "TracingConfig",
    "UsageConfig",
]
