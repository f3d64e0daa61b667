"""Shared by all tests: markers by folder, tiny checkpoints, an engine over one of them.

Tests with random inputs try a few hundred, and 100,000 each with `--hypothesis-profile fuzz --timeout 0`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from serve_app.config import EngineConfig, ModelConfig
from serve_app.engine.engine import Engine
from serve_app.models.load_family import load_family
from serve_app.requests.capabilities import Limits, ModelCapabilities
from serve_app.requests.params import SamplingParams
from tests.checkpoints import save_stable_diffusion, save_stable_diffusion_xl

pytest_plugins = ["pytester", "tests.no_skips"]
TESTS = Path(__file__).parent
MARKERS = {"ray", "gpu", "slow", "faults"}
"""Tests in a folder of this name, at any depth, have the marker."""

settings.register_profile(
    "plain", max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("fuzz", settings.get_profile("plain"), max_examples=100_000, derandomize=False)
settings.load_profile("plain")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what is marked slow")
    parser.addoption(
        "--long-faults", type=int, default=0, metavar="TIMES", help="all fault tests, on images of 20 s, so many times"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        folders = item.path.relative_to(TESTS).parts
        for marker in MARKERS.intersection(folders):
            item.add_marker(marker)
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
    # A mistake that a fast test finds is told before the minutes that Ray takes.
    items.sort(key=lambda item: item.get_closest_marker("ray") is not None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors: a second thread only waits


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like SD 1.5: epsilon, PNDM config."""
    return save_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def tiny_sd_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like SD 2.1: v-prediction, DDIM config."""
    return save_stable_diffusion(tmp_path_factory.mktemp("sd-v"), "v_prediction")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like SDXL base."""
    return save_stable_diffusion_xl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def tiny_inpaint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like SD 1.5 inpainting: 9 channels into the UNet."""
    return save_stable_diffusion(tmp_path_factory.mktemp("sd-inpaint"), in_channels=9)


@pytest.fixture(scope="session")
def tiny_sdxl_inpaint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like SDXL inpainting."""
    return save_stable_diffusion_xl(tmp_path_factory.mktemp("sdxl-inpaint"), in_channels=9)


@pytest.fixture(scope="session")
def tiny_lcm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like LCM Dreamshaper: the guidance scale is an input of the UNet."""
    return save_stable_diffusion(tmp_path_factory.mktemp("lcm"), time_cond_proj_dim=32)


def tiny_config(source: Path | str, **engine: object) -> ModelConfig:
    """A 64-pixel model that skips the warm-up curve."""
    return ModelConfig(
        source=str(source),
        device="cpu",
        native_size=64,
        cpu_threads=1,
        engine=EngineConfig.model_validate({"max_rows": 16, **engine}),
    )


def tiny_capabilities(config: ModelConfig) -> ModelCapabilities:
    """What tests ask of a tiny model: images from 32 pixels, four steps by default."""
    return ModelCapabilities(
        native_size=config.native_size,
        loras=tuple(config.loras),
        embeddings=tuple(config.embeddings),
        defaults=SamplingParams(num_inference_steps=4, guidance_scale=5.0, sampler="euler"),
        limits=Limits(min_side=32),
    )


@pytest.fixture(scope="session")
def engine(tiny_sd: Path) -> Iterator[Engine]:
    """One engine for all tests that leave it as they found it."""
    config = tiny_config(tiny_sd)
    with Engine(load_family(config), config) as running:
        yield running
