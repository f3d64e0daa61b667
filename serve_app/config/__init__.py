"""The configuration, whole: what one YAML's `args` may say. Frozen, strict, and free of surprises.

AppConfig (`app`) > ModelConfig (`model`) > EngineConfig. An unknown key, a wrong type or a contradiction is refused at
start with the key's path. Nothing else in Darkroom reads the environment.
"""

from serve_app.config.app import (
    AppConfig,
    IngressConfig,
    KeysConfig,
    PresetConfig,
    ResultsConfig,
    SafetyConfig,
    TracingConfig,
    count_gpus,
)
from serve_app.config.model import Autoscaling, Defaults, EngineConfig, Limits, ModelConfig, Replicas, Strict

__all__ = [
    "AppConfig",
    "Autoscaling",
    "Defaults",
    "EngineConfig",
    "IngressConfig",
    "KeysConfig",
    "Limits",
    "ModelConfig",
    "PresetConfig",
    "Replicas",
    "ResultsConfig",
    "SafetyConfig",
    "Strict",
    "TracingConfig",
    "count_gpus",
]
