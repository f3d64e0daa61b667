"""What a loaded checkpoint can do."""

from serve_app.config import ModelConfig
from serve_app.diffusion.tables import SamplerTables
from serve_app.models.cpu_threads import run_apart
from serve_app.models.model_family import ModelFamily
from serve_app.requests.capabilities import ModelCapabilities


def find_capabilities(family: ModelFamily, config: ModelConfig, tables: SamplerTables) -> ModelCapabilities:
    """What the checkpoint decides; defaults and limits are those of `requests/`."""
    return ModelCapabilities(
        family=type(family).__name__,
        source=config.source,
        native_size=config.native_size,
        vae_scale_factor=family.autoencoder.scale_factor,
        max_clip_skip=family.max_clip_skip,
        samplers=run_apart(tables.followable_samplers),
        loras=tuple(config.loras),
        embeddings=tuple(config.embeddings),
    )
