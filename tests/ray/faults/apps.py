"""The application of the fault tests: Darkroom's own graph, its replicas with faults that a test asks for."""

import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ray.serve import Application

from serve_app import app
from serve_app.config import AppConfig
from serve_app.deployments.replica import ModelReplica
from serve_app.deployments.safety_replica import SafetyReplica
from tests.ray.apps import Section, application, tiny_model

STEPS, LONG_STEPS = 40, 200
PACE_SECONDS = 0.1
"""Of one forward: an image takes four seconds, a long one twenty, and the CPU is free for most of them."""
RESUME_SECONDS = 0.3
DEFAULTS = {"guidance_scale": 4.0, "sampler": "euler_a"}
REVIEW_SECONDS = 1.0


class FaultyConfig(AppConfig):
    """`args`, with the folder that tests and replicas share."""

    folder: str


def build(config: FaultyConfig) -> Application:
    """Ray reads the annotation of `config`, as it does that of `serve_app.app.build`."""
    folder = Path(config.folder)

    class FaultyReplica(ModelReplica):
        def __init__(self, *args: Any) -> None:
            from tests.ray.faults.faulty_steps import install

            install(folder)
            super().__init__(*args)

    with patch.object(app, "ModelReplica", FaultyReplica), patch.object(app, "SafetyReplica", SlowSafety):
        return app.build(AppConfig.model_validate(config.model_dump(exclude={"folder"})))


class SlowSafety(SafetyReplica):
    """Takes a second for each batch, so that a test can kill it meanwhile."""

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        await super().reconfigure(user_config)
        checker = self._checker
        if checker is not None and not hasattr(checker, "is_slow"):
            flags = checker.flags

            def slow_flags(images: Any) -> list[bool]:
                time.sleep(REVIEW_SECONDS)
                return flags(images)

            vars(checker).update(flags=slow_flags, is_slow=True)


def faulty_application(
    folder: Path, checker: Path, *, model: Section, options: Section, ingresses: int, settings: Section
) -> Section:
    """The built-in model with a resume point every 0.3 s, and a safety checker. See `Faults.change`."""
    engine = {"max_rows": 8, "deterministic": True, "resume_interval_s": RESUME_SECONDS}
    section = application(
        {"emoji": {**tiny_model("builtin:emoji", native_size=128, engine=engine), **model}},
        settings={"emoji": settings},
        ingress={"results": {"url": str(folder / "results")}},
        safety={"checker": str(checker), "device": "cpu"},
        args={"safety": {"num_cpus": 0.25}, "folder": str(folder)},
        options={"model-emoji": options, "ingress": {"num_replicas": ingresses}},
    )
    return {**section, "import_path": "tests.ray.faults.apps:build"}
