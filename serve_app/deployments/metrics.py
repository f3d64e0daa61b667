"""Metrics for operators, exported by Ray with the prefix `ray_`."""

import threading
from typing import TYPE_CHECKING, Any

from ray.serve.metrics import Counter, Gauge, Histogram

from serve_app.api.api_paths import api_of
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.requests.events import GeneratedImage

if TYPE_CHECKING:
    from serve_app.engine.engine import Engine

SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600]
"""Buckets that fit images: 10 ms to 10 minutes."""
STEP_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
PERIOD_SECONDS = 1.0
MEMORY_PERIODS = 5
"""Memory is read in every fifth sample only: reading it takes a millisecond. Ray forgets it after some 20 s."""
Tags = Any  # Ray annotates tag keys as a tuple of one
MODEL: Tags = ("model",)
MODEL_PHASE: Tags = ("model", "phase")
MODEL_REASON: Tags = ("model", "reason")
API: Tags = ("api",)
API_STATUS: Tags = ("api", "status")
API_REASON: Tags = ("api", "reason")
NOTHING = 1e-9
"""Ray's counters refuse 0, and Prometheus sees no increase where a counter first appears with its first count."""
PHASES = ("queue", "encode", "denoise", "decode")


class ReplicaMetrics:
    """Metrics of one replica: what each image took, and once a second the engine's counters.

    The time of a step and the width of a batch are sampled once a second, not at each step.
    """

    def __init__(self, model: str) -> None:
        self._model = {"model": model}
        self._engine: Engine | None = None
        self._images = Counter("darkroom_images", "Images finished.", tag_keys=MODEL)
        self._phase = Histogram(
            "darkroom_phase_seconds",
            "Seconds an image spent: queue (from arrival to the first step), encode, denoise, decode.",
            boundaries=SECONDS,
            tag_keys=MODEL_PHASE,
        )
        self._total = Histogram(
            "darkroom_image_seconds", "Seconds from arrival to file.", boundaries=SECONDS, tag_keys=MODEL
        )
        self._device = Counter("darkroom_device_seconds", "Denoiser time, by image share.", tag_keys=MODEL)
        self._step = Histogram(
            "darkroom_step_seconds", "Seconds of a denoising step.", boundaries=STEP_SECONDS, tag_keys=MODEL
        )
        self._counted = {
            name: Counter(f"darkroom_{name}", text, tag_keys=MODEL)
            for name, text in {
                "steps": "Denoising steps.",
                "model_rows": "UNet rows denoised.",
                "padded_rows": "UNet rows that only filled a bucket.",
                "cancelled": "Requests that left before their image.",
                "prompts_known": "Prompts found in the cache.",
                "prompts_encoded": "Prompts that had to be encoded.",
            }.items()
        }
        self._orphans = Counter("darkroom_orphans", "Images ended because their ingress replica died.", tag_keys=MODEL)
        self._orphans.inc(NOTHING, tags=self._model)
        self._in_flight = Gauge("darkroom_rows_in_flight", "UNet rows being denoised.", tag_keys=MODEL)
        self._width = Gauge("darkroom_batch_width", "UNet rows of a step, mean of a second.", tag_keys=MODEL)
        self._memory = Gauge("darkroom_gpu_memory_bytes", "GPU memory that torch holds.", tag_keys=MODEL)
        self._seen = dict.fromkeys(self._counted, 0)
        self._samples = 0
        self._stop = threading.Event()
        threading.Thread(target=self._poll, name="metrics", daemon=True).start()

    def watch(self, engine: "Engine") -> None:
        """Read this engine's counters from now on."""
        self._engine = engine
        self._seen = dict.fromkeys(self._counted, 0)

    def note(self, image: GeneratedImage) -> None:
        """An image is finished."""
        self._images.inc(tags=self._model)
        self._device.inc(max(image.timings.device, 1e-9), tags=self._model)
        spent = [max(0.0, getattr(image.timings, phase)) for phase in PHASES]
        for phase, seconds in zip(PHASES, spent, strict=True):
            self._phase.observe(seconds, tags={**self._model, "phase": phase})
        self._total.observe(sum(spent), tags=self._model)

    def note_orphans(self, count: int) -> None:
        """So many images were ended because nobody is there to get them."""
        if count:
            self._orphans.inc(count, tags=self._model)

    def close(self) -> None:
        """Stop reading the counters."""
        self._stop.set()

    def _poll(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self.sample()

    def sample(self) -> None:
        """Read the engine's counters."""
        if self._engine is None:
            return
        counters = self._engine.counters
        grown = {name: getattr(counters, name) - before for name, before in self._seen.items()}
        for name, growth in grown.items():
            if growth > 0:
                self._counted[name].inc(growth, tags=self._model)
                self._seen[name] += growth
        self._in_flight.set(counters.rows_in_flight, tags=self._model)
        if grown["steps"]:
            self._step.observe(counters.step_seconds, tags=self._model)
            self._width.set(grown["model_rows"] / grown["steps"], tags=self._model)
        if self._samples % MEMORY_PERIODS == 0:
            self._memory.set(self._engine.memory().gpu_reserved, tags=self._model)
        self._samples += 1


class IngressMetrics:
    """Metrics of an ingress replica: responses by API and status, and refusals by reason."""

    def __init__(self) -> None:
        self._answers = Counter("darkroom_answers", "HTTP answers.", tag_keys=API_STATUS)
        self._refusals = Counter("darkroom_refusals", "Answers that are errors, by code.", tag_keys=API_REASON)
        self._seconds = Histogram(
            "darkroom_http_seconds", "Seconds to answer a request.", boundaries=SECONDS, tag_keys=API
        )

    def count_response(self, record: AccessRecord) -> None:
        """Count one HTTP response."""
        api = api_of(record.path)
        self._answers.inc(tags={"api": api, "status": str(record.status)})
        if record.error is not None:
            self._refusals.inc(tags={"api": api, "reason": record.error})
        self._seconds.observe(record.seconds, tags={"api": api})
