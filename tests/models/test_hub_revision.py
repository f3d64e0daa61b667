"""Of a hub repository the configured revision is loaded. The hub is a cache on this disk, as after a fetch."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from serve_app.config import AppConfig, IngressConfig, ModelConfig, SafetyConfig
from serve_app.config.application import Placement
from serve_app.config.serve_file import DarkroomConfig
from serve_app.errors import ModelLoadError
from serve_app.models.load_family import load_family
from serve_app.models.loading.prefetch import prefetch
from serve_app.models.loading.sources import find_checker, find_checkpoint
from tests.checkpoints import save_safety_checker
from tests.conftest import tiny_config

OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def publish(hub: Path, name: str, commit: str, folder: Path) -> Path:
    """Put a folder into the cache as a commit of `name`, and as its main branch."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, repository / "snapshots" / commit))


def scale_vae(folder: Path, factor: float) -> None:
    """Make a VAE's weights recognisable."""
    (path,) = folder.glob("*.safetensors")
    save_file({key: value * factor for key, value in load_file(path).items()}, path, {"format": "pt"})


@pytest.mark.parametrize(("revision", "expected"), [(OLD, OLD), (NEW, NEW), ("main", NEW), (None, NEW)])
def test_a_models_revision_is_loaded(hub: Path, tiny_sd: Path, revision: str | None, expected: str) -> None:
    for commit in (OLD, NEW):
        publish(hub, "someone/model", commit, tiny_sd)
    config = tiny_config("someone/model").model_copy(update={"revision": revision})
    assert find_checkpoint(config).name == expected
    assert load_family(config).autoencoder.latent_channels == 4


def test_a_vaes_revision_is_loaded(hub: Path, tiny_sd: Path) -> None:
    for commit, factor in ((OLD, 0.5), (NEW, 1.0)):
        scale_vae(publish(hub, "someone/vae", commit, tiny_sd / "vae"), factor)
    config = tiny_config(tiny_sd).model_copy(update={"vae": "someone/vae"})
    latents = torch.ones(1, 4, 8, 8)
    drawn = {
        revision: load_family(config.model_copy(update={"vae_revision": revision})).autoencoder.decode(latents)
        for revision in (OLD, NEW, None)
    }
    assert torch.equal(drawn[NEW], drawn[None])
    assert not torch.equal(drawn[OLD], drawn[NEW])


def test_every_revision_is_fetched_before(hub: Path, tiny_sd: Path, tmp_path: Path) -> None:
    checker = save_safety_checker(tmp_path / "checker", flags=True)
    for name, folder in (
        ("a/model", tiny_sd),
        ("a/vae", tiny_sd / "vae"),
        ("a/tiny", tiny_sd / "vae"),
        ("a/c", checker),
    ):
        for commit in (OLD, NEW):
            publish(hub, name, commit, folder)
    pinned = {"revision": OLD, "vae_revision": OLD, "preview_revision": OLD}
    model = ModelConfig.model_validate({"source": "a/model", "vae": "a/vae", "preview": "a/tiny", **pinned})
    app = AppConfig(models={"m": Placement()}, safety=Placement())
    safety = SafetyConfig(checker="a/c", revision=OLD)
    found = prefetch(DarkroomConfig(app, IngressConfig(), {"m": model}, safety))
    assert [path.name for path in found] == [OLD] * 4
    assert find_checker(SafetyConfig(checker="a/c")).name == NEW


def test_a_revision_that_is_not_there_is_named(hub: Path, tiny_sd: Path) -> None:
    publish(hub, "someone/model", NEW, tiny_sd)
    config = tiny_config("someone/model").model_copy(update={"revision": OLD})
    with pytest.raises(ModelLoadError, match=f"source: someone/model at {OLD} cannot be fetched from the hub"):
        load_family(config)


def test_a_repository_with_pickled_weights_only_is_refused(hub: Path, tmp_path: Path) -> None:
    vae = tmp_path / "vae"
    AutoencoderKL().save_pretrained(vae, safe_serialization=False)
    publish(hub, "someone/vae", NEW, vae)
    config = tiny_config("builtin:emoji").model_copy(update={"vae": "someone/vae"})
    with pytest.raises(ModelLoadError, match="safetensors"):
        load_family(config)
