"""The VAE thread: init images to latents, latents to pixels. Its pool of threads turns pixels into files."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from serve_app.config import EngineConfig
from serve_app.engine.engine_state import EngineState
from serve_app.engine.hires import enlarge_latents, enlarge_pixels
from serve_app.engine.init_latents import encode_source
from serve_app.engine.passes import Pass
from serve_app.engine.row_caps import RowCaps
from serve_app.engine.thread_queues import Job, PreviewJob
from serve_app.engine.trajectory import Trajectory
from serve_app.engine.work_guard import run_guarded
from serve_app.errors import DeviceLost, Draining
from serve_app.models.cpu_threads import claim_cores
from serve_app.models.model_family import ModelFamily
from serve_app.models.preview_decoder import PreviewDecoder
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import encode_image

JobT = TypeVar("JobT", Trajectory, PreviewJob)


class VaeWorker:
    """Takes `jobs`: a pass to encode, a finished trajectory to decode, a preview to make.

    Encoded passes and second passes go to `inbox`, for the denoise loop; files go to their future.
    Every decode has exactly `decode_batch` rows, because its result depends on their number.

    Args:
        family: the checkpoint, whose autoencoder is used.
        config: decode batch and threads are read.
        preview_decoder: makes the previews.
        state: what it shares with the engine.
    """

    def __init__(
        self,
        *,
        family: ModelFamily,
        config: EngineConfig,
        preview_decoder: PreviewDecoder,
        state: EngineState,
    ) -> None:
        self._family = family
        self._row_caps = RowCaps(lambda _: 1 if config.deterministic else config.decode_batch)
        self._preview_decoder = preview_decoder
        self._inbox, self._jobs, self._open = state.inbox, state.jobs, state.open_images
        self._guard, self._running = state.guard, state.running
        self._waiting: deque[Job | None] = deque()
        self._stall_seconds = config.stall_seconds
        self._compressors = ThreadPoolExecutor(config.image_threads, thread_name_prefix="compress")
        self._stream = torch.cuda.Stream(family.device) if family.device.type == "cuda" else None
        self.cores_claimed = threading.Event()

    def run(self) -> None:
        """Do jobs until one is None, or until the engine has ended."""
        claim_cores(self._family.device, 1)
        self.cores_claimed.set()
        with self._compressors, torch.inference_mode(), torch.cuda.stream(self._stream):
            while not self._open.has_ended and self._work():
                pass

    def _next_batch(self) -> list[Job]:
        """Wait for a job. A trajectory brings along those of its size right behind it, up to a decode batch."""
        self._take_jobs()
        first = self._waiting.popleft()
        if first is None:
            return []
        batch = [first]
        while isinstance(first, Trajectory) and self._waiting and len(batch) < self._row_caps(first.size):
            job = self._waiting[0]
            if not isinstance(job, Trajectory) or job.size != first.size:
                break
            batch.append(job)
            self._waiting.popleft()
        return batch

    def _take_jobs(self) -> None:
        """Take all that is there, at least one. While handing over, what would go on denoising ends here."""
        if not self._waiting:
            self._waiting.append(self._jobs.get())
        while not self._jobs.empty():
            self._waiting.append(self._jobs.get())
        if self._open.is_handing_over:
            for job in self._waiting:
                if isinstance(job, Pass) or (isinstance(job, Trajectory) and job.following is not None):
                    job.fail(Draining("the image goes on in another engine"))

    def _work(self) -> bool:
        """Do a job, and trajectories that are to be decoded together. False where there is none to come."""
        batch = self._next_batch()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.default_stream(self._family.device))
        to_decode: list[Trajectory] = []
        for job in batch:
            if job.future.done():
                continue
            if isinstance(job, Pass):
                with self._running.during_kind("encoding images", job.num_pixels):
                    self._guard.run("encoding the image", self._encode, [job])
            elif isinstance(job, PreviewJob):
                with self._running.during_kind("making previews", job.pass_.num_pixels):
                    self._guard.run("making a preview", self._preview, [job])
            elif job.enlarges_latents:
                with self._running.during_kind("enlarging latents", job.pass_.num_pixels):
                    self._guard.run("enlarging the latents", self._enlarge, [job])
            else:
                to_decode.append(job)
        if to_decode:
            with self._running.during_kind("decoding", sum(row.pass_.num_pixels for row in to_decode)):
                self._guard.run("decoding", self._decode, to_decode, self._lower_cap)
        return bool(batch)

    def _encode(self, passes: Sequence[Pass]) -> None:
        """Give each pass its source."""
        family = self._family
        for pass_ in passes:
            if pass_.request.init is None:
                raise ValueError("there is no image to encode")
            source = encode_source(pass_.request.init, family.autoencoder, family.mask_channels > 0, family.device)
            self._send(replace(pass_, source=source))

    def _enlarge(self, rows: Sequence[Trajectory]) -> None:
        """Start each second pass from its first pass's latents."""
        factor = self._family.autoencoder.scale_factor
        for row in rows:
            if row.following is not None:
                self._send(enlarge_latents(row.following, row.final_latents(), factor, row.timings))

    def _send(self, pass_: Pass) -> None:
        """To the denoise loop, once this thread's stream has written the pass's tensors."""
        if self._stream is not None:
            self._stream.synchronize()
        self._inbox.put(pass_)

    def _decode(self, rows: Sequence[Trajectory]) -> None:
        """VAE calls, padded because the result depends on the number of rows."""
        latents = torch.stack([row.final_latents() for row in rows])
        width = self._row_caps(rows[0].size)
        images: list[torch.Tensor] = []
        for part in latents.split(width):
            padding = part[:1].expand(width - len(part), -1, -1, -1)
            images += self._family.autoencoder.decode(torch.cat([part, padding]))[: len(part)]
        for row, pixels in zip(rows, images, strict=True):
            self._compress("writing the file", partial(self._finish, pixels=pixels.numpy()), row)

    def _lower_cap(self, rows: Sequence[Trajectory]) -> bool:
        """After a decode that did not fit into memory."""
        size = rows[0].size
        width = self._row_caps(size)
        self._row_caps.lower(size, width)
        return width > 1

    def _compress(self, phase: str, work: Callable[[Sequence[JobT]], None], job: JobT) -> None:
        """Have a thread of the pool do the rest of a job. The device is not needed for it."""

        def run() -> None:
            with self._running.during(self._stall_seconds):
                run_guarded(phase, work, [job])

        self._compressors.submit(run).add_done_callback(self._end_if_failed)

    def _end_if_failed(self, done: Future[None]) -> None:
        """What the guard let through belongs to no request."""
        error = done.exception()
        if error is not None:
            self._open.end(error if isinstance(error, DeviceLost) else DeviceLost(f"a thread has ended: {error}"))

    def _finish(self, rows: Sequence[Trajectory], pixels: np.ndarray) -> None:
        """Turn pixels (h, w, 3) uint8 into the second pass's init image, or else into the file."""
        for row in rows:
            output, timings = row.pass_.request.output, row.timings
            timings = replace(timings, decode=timings.decode + time.monotonic() - row.last_step_end)
            if row.following is not None:
                self._jobs.put(enlarge_pixels(row.following, pixels, timings))
                return
            row.future.settle(
                GeneratedImage(
                    content=encode_image(pixels, output),
                    format=output.format,
                    width=output.width,
                    height=output.height,
                    seed=row.pass_.request.seed,
                    timings=timings,
                )
            )

    def _preview(self, previews: Sequence[PreviewJob]) -> None:
        for preview in previews:
            show = partial(self._show, pixels=self._preview_decoder.decode(preview.latents))
            self._compress("making a preview", show, preview)

    def _show(self, previews: Sequence[PreviewJob], pixels: np.ndarray) -> None:
        """Tell the progress with the preview, a file in the format and size of the image, without its metadata."""
        for preview in previews:
            if not preview.future.done():
                content = encode_image(pixels, replace(preview.pass_.request.output, infotext=""))
                preview.pass_.tell(replace(preview.progress, preview=content))
