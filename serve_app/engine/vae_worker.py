"""Off the denoising path: the VAE, both ways, in a thread of its own; compression in a pool."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from serve_app.config import EngineConfig
from serve_app.engine.hires import enlarge_latents, enlarge_pixels
from serve_app.engine.init_latents import encode_source
from serve_app.engine.passes import Pass
from serve_app.engine.trajectory import DecodeJob, EncodeJob, PendingRequest, Preview
from serve_app.errors import GenerationFailed
from serve_app.models.cpu_threads import claim_cores
from serve_app.models.model_family import ModelFamily
from serve_app.models.preview_decoder import PreviewDecoder
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import encode_image

log = logging.getLogger("darkroom.engine")

OnDone = Callable[[Pass, GeneratedImage | Exception], None]
Job = EncodeJob | DecodeJob | Preview


class VaeWorker:
    """Pictures to latents, latents to files. Every decode has exactly `decode_batch` rows: its result depends on it.

    Args:
        on_pending: takes what is ready to be denoised: an encoded picture, or the second pass of an job.
        on_done: takes every pass_'s file or failure, from another thread.
    """

    def __init__(
        self,
        family: ModelFamily,
        config: EngineConfig,
        preview_decoder: PreviewDecoder,
        on_pending: Callable[[PendingRequest], None],
        on_done: OnDone,
    ) -> None:
        self._family = family
        self._rows = 1 if config.deterministic else config.decode_batch
        self._preview_decoder = preview_decoder
        self._on_arrival = on_pending
        self._on_done = on_done
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._compressors = ThreadPoolExecutor(config.image_threads, thread_name_prefix="compress")
        self.thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._claimed = threading.Event()
        self.thread.start()
        self._claimed.wait()

    def take(self, job: Job) -> None:
        """Take one; `on_pending`, `on_done` or its pass_'s `on_progress` is called later, from another thread."""
        self._jobs.put(job)

    def close(self) -> None:
        """Finish what was taken, then stop."""
        self._jobs.put(None)
        self.thread.join()
        self._compressors.shutdown()

    def _run(self) -> None:
        claim_cores(self._family.device, 1)
        self._claimed.set()
        stream = torch.cuda.Stream(self._family.device) if self._family.device.type == "cuda" else None
        pending: Job | None = self._jobs.get()
        with torch.inference_mode(), torch.cuda.stream(stream):
            while pending is not None:
                batch, pending = self._gather(pending)
                if stream is not None:
                    stream.wait_stream(torch.cuda.default_stream(self._family.device))
                self._work(batch)
                if stream is not None:
                    stream.synchronize()
                pending = pending or self._jobs.get()

    def _work(self, batch: list[Job]) -> None:
        """Do what a batch of jobs of one kind asks."""
        jobs: list[DecodeJob] = []
        for job in batch:
            if job.pass_.future.cancelled():
                continue
            if isinstance(job, EncodeJob):
                self._encode(job)
            elif isinstance(job, Preview):
                self._preview(job)
            elif not torch.isfinite(job.latents).all():
                failure = GenerationFailed("the latents are not finite numbers: try another dtype")
                self._on_done(job.pass_, failure)
            elif (pending := enlarge_latents(job)) is not None:
                self._on_arrival(pending)
            else:
                jobs.append(job)
        if jobs:
            self._decode(jobs)

    def _gather(self, first: Job) -> tuple[list[Job], Job | None]:
        """`first` and the jobs of its size that already wait, up to a batch; and one job taken too far."""
        batch = [first]
        while len(batch) < self._rows and isinstance(first, DecodeJob) and not self._jobs.empty():
            following = self._jobs.get()
            if following is None:
                self._jobs.put(None)
                break
            if not isinstance(following, DecodeJob) or following.latents.shape != first.latents.shape:
                return batch, following
            batch.append(following)
        return batch, None

    def _encode(self, original: EncodeJob) -> None:
        family = self._family
        try:
            source = encode_source(original.init, family.autoencoder, family.mask_channels > 0, family.device)
        except RuntimeError as error:
            self._on_done(original.pass_, GenerationFailed(f"encoding the image failed: {error}"))
            return
        self._on_arrival(PendingRequest(original.pass_, source))

    def _decode(self, batch: list[DecodeJob]) -> None:
        """One VAE call for `batch`, filled up; where it fails, one for each, so that only the guilty fail."""
        latents = torch.stack([job.latents for job in batch])
        padding = latents[:1].expand(self._rows - len(batch), -1, -1, -1)
        try:
            pictures = self._family.autoencoder.decode(torch.cat([latents, padding]))
        except RuntimeError as error:
            if len(batch) == 1:
                self._on_done(batch[0].pass_, GenerationFailed(f"decoding failed: {error}"))
                return
            for job in batch:
                self._decode([job])
            return
        for job, pixels in zip(batch, pictures[: len(batch)], strict=True):
            self._compressors.submit(self._finish, job, pixels.numpy())

    def _preview(self, preview: Preview) -> None:
        """Where it cannot be painted it is progress without a picture: the image does not depend on it."""
        try:
            self._compressors.submit(self._show, preview, self._preview_decoder.decode(preview.latents))
        except RuntimeError as error:
            log.warning("a preview failed", exc_info=error)
            preview.pass_.tell(preview.progress)

    def _show(self, preview: Preview, pixels: np.ndarray) -> None:
        pass_ = preview.pass_
        if not pass_.future.cancelled():
            content = encode_image(pixels, replace(pass_.request.output, infotext=""))
            pass_.tell(replace(preview.progress, preview=content))

    def _finish(self, job: DecodeJob, pixels: np.ndarray) -> None:
        """A decoded picture goes round again where a second pass follows, else into its file."""
        pass_, output = job.pass_, job.pass_.request.output
        timings = replace(job.timings, decode=job.timings.decode + time.monotonic() - job.denoised_at)
        if pass_.following is not None:
            self.take(enlarge_pixels(pass_.following, pixels, timings))
            return
        try:
            content = encode_image(pixels, output)
        except (OSError, ValueError) as error:
            self._on_done(pass_, GenerationFailed(f"the {output.format} file could not be written: {error}"))
            return
        done = GeneratedImage(content, output.format, output.width, output.height, pass_.request.seed, timings)
        self._on_done(pass_, done)
