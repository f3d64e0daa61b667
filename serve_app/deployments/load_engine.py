"""The engine of a model replica, loaded where torch may be imported."""

from typing import TYPE_CHECKING

import ray

from serve_app.config import ModelConfig
from serve_app.models.paused_gc import paused_gc

if TYPE_CHECKING:
    from serve_app.engine.engine import Engine


def load_engine(config: ModelConfig) -> "Engine":
    """Load a model and draw its warm-up image. Raises ModelLoadError."""
    # Imported here, not above: torch, diffusers and transformers take seconds, and whoever builds the application
    # imports this module as well.
    with paused_gc():
        from serve_app.engine.engine import Engine

    return Engine.load(config, assigned_gpus())


def assigned_gpus() -> float:
    """The share of a GPU that Ray has given to this process."""
    return ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0) if ray.is_initialized() else 0.0
