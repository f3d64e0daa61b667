"""Off the denoising path: the VAE in a thread of its own, at one fixed batch size, and compression in a pool."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from serve_app.config import EngineConfig
from serve_app.engine.images import encode_image
from serve_app.engine.request import GeneratedImage, Timings
from serve_app.engine.trajectory import Exposure
from serve_app.errors import GenerationFailed
from serve_app.models.family import ModelFamily
from serve_app.models.host import claim_cores

OnDone = Callable[[Exposure, GeneratedImage | Exception], None]


class Developer:
    """Turns exposures into files. Every VAE call has exactly `decode_batch` rows, because its result depends on it."""

    def __init__(self, family: ModelFamily, config: EngineConfig, on_done: OnDone) -> None:
        self._family = family
        self._rows = 1 if config.deterministic else config.decode_batch
        self._on_done = on_done
        self._exposures: queue.SimpleQueue[Exposure | None] = queue.SimpleQueue()
        self._compressors = ThreadPoolExecutor(config.image_threads, thread_name_prefix="compress")
        self.thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._claimed = threading.Event()
        self.thread.start()
        self._claimed.wait()

    def develop(self, exposure: Exposure) -> None:
        """Take one; `on_done` is called for it later, from another thread."""
        self._exposures.put(exposure)

    def close(self) -> None:
        """Finish what was taken, then stop."""
        self._exposures.put(None)
        self.thread.join()
        self._compressors.shutdown()

    def _run(self) -> None:
        claim_cores(self._family.device, 1)
        self._claimed.set()
        stream = torch.cuda.Stream(self._family.device) if self._family.device.type == "cuda" else None
        pending: Exposure | None = self._exposures.get()
        with torch.inference_mode(), torch.cuda.stream(stream):
            while pending is not None:
                batch, pending = self._gather(pending)
                if stream is not None:
                    stream.wait_stream(torch.cuda.default_stream(self._family.device))
                sound = [exposure for exposure in batch if self._is_sound(exposure)]
                if sound:
                    self._decode(sound)
                pending = pending or self._exposures.get()

    def _gather(self, first: Exposure) -> tuple[list[Exposure], Exposure | None]:
        """`first` and those of its size that already wait, up to a batch; and one of another size, taken too far."""
        batch = [first]
        while len(batch) < self._rows and not self._exposures.empty():
            following = self._exposures.get()
            if following is None:
                self._exposures.put(None)
                break
            if following.latents.shape != first.latents.shape:
                return batch, following
            batch.append(following)
        return batch, None

    def _is_sound(self, exposure: Exposure) -> bool:
        """Still wanted, and made of numbers; what is not numbers fails here."""
        if exposure.ticket.future.cancelled():
            return False
        if torch.isfinite(exposure.latents).all():
            return True
        self._on_done(exposure, GenerationFailed("the latents are not finite numbers: try another dtype"))
        return False

    def _decode(self, batch: list[Exposure]) -> None:
        """One VAE call for `batch`, filled up; where it fails, one for each, so that only the guilty fail."""
        latents = torch.stack([exposure.latents for exposure in batch])
        padding = latents[:1].expand(self._rows - len(batch), -1, -1, -1)
        try:
            pictures = self._family.decode(torch.cat([latents, padding]))
        except RuntimeError as error:
            if len(batch) == 1:
                self._on_done(batch[0], GenerationFailed(f"decoding failed: {error}"))
                return
            for exposure in batch:
                self._decode([exposure])
            return
        for exposure, pixels in zip(batch, pictures[: len(batch)], strict=True):
            self._compressors.submit(self._compress, exposure, pixels.numpy())

    def _compress(self, exposure: Exposure, pixels: np.ndarray) -> None:
        output = exposure.ticket.request.output
        try:
            content = encode_image(pixels, output)
        except (OSError, ValueError) as error:
            self._on_done(exposure, GenerationFailed(f"the {output.format} file could not be written: {error}"))
            return
        timings = Timings(
            queue=exposure.queue_seconds,
            encode=exposure.encode_seconds,
            denoise=exposure.denoise_seconds,
            decode=time.monotonic() - exposure.denoised_at,
        )
        image = GeneratedImage(
            content, output.format, output.width, output.height, exposure.ticket.request.seed, timings
        )
        self._on_done(exposure, image)
