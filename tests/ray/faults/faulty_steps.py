"""Runs in a model replica's process: a log of its steps, a device that is slow, and the faults that a test asks for.

A test and the replicas share a folder. It outlives replicas, so a fault can end one after the other.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

LOG, PACE = "steps.log", "pace"


@dataclass(frozen=True)
class Condition:
    """When a fault strikes: before this step of an image with this prompt, in this process. None is any."""

    prompt: str | None = None
    pid: int | None = None
    step: int = 3

    def holds(self, rows: Sequence[Any]) -> bool:
        """Whether it strikes in a step of these rows."""
        if self.pid not in (None, os.getpid()):
            return False
        return any(row.step_index >= self.step and self.prompt in (None, row.pass_.request.prompt) for row in rows)


@dataclass(frozen=True)
class LoggedStep:
    """One row of one step that was done."""

    pid: int
    seed: int
    step: int
    began: float
    seconds: float


class FaultyDevice:
    """Stands for the device in one replica.

    Args:
        folder: what tests and replicas share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lost = False

    def pace(self, began: float) -> None:
        """Wait until a forward that began then has taken as long as the test wants."""
        try:
            seconds = float((self._folder / PACE).read_text() or 0)
        except FileNotFoundError:
            return
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def fail(self, rows: Sequence[Any]) -> None:
        """Do what the test asked for. Raises what a device raises."""
        if self._lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if self._strikes("poison", rows, stays=True):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._strikes("hang", rows):
            time.sleep(3600)
        if self._strikes("memory", rows):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if self._strikes("device", rows):
            self._lost = True
            self.fail(rows)

    def log(self, rows: Sequence[Any], steps: Sequence[int], began: float) -> None:
        """Note a step that was done."""
        seconds = time.monotonic() - began
        seeds = [row.pass_.request.seed for row in rows]
        done = [LoggedStep(os.getpid(), seed, step, began, seconds) for seed, step in zip(seeds, steps, strict=True)]
        with (self._folder / LOG).open("a") as file:
            file.write("".join(json.dumps(asdict(one)) + "\n" for one in done))

    def _strikes(self, fault: str, rows: Sequence[Any], stays: bool = False) -> bool:
        """Whether the fault is asked for and its condition holds. One that does not stay strikes one replica, once."""
        path = self._folder / fault
        try:
            if not Condition(**json.loads(path.read_text())).holds(rows):
                return False
            if not stays:
                path.unlink()
        except FileNotFoundError:
            return False
        return True


def install(folder: Path) -> None:
    """Make this process' engine use a faulty device."""
    from serve_app.engine import denoise_loop
    from serve_app.models.families.unet_family import UNet

    device = FaultyDevice(folder)
    take_step: Callable[..., None] = denoise_loop.step
    predict: Callable[..., torch.Tensor] = UNet.predict

    def paced_predict(unet: UNet, *args: Any) -> torch.Tensor:
        began = time.monotonic()
        output = predict(unet, *args)
        device.pace(began)
        return output

    def faulty_step(family: Any, rows: Sequence[Any], bucket: int | None) -> None:
        steps, began = [row.step_index for row in rows], time.monotonic()
        device.fail(rows)
        take_step(family, rows, bucket)
        device.log(rows, steps, began)

    UNet.predict = paced_predict
    denoise_loop.step = faulty_step
