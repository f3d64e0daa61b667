"""`StepReports`: what callers are told after a step."""

import time
from collections.abc import Sequence

from serve_app.engine.thread_queues import Jobs, PreviewJob
from serve_app.engine.trajectory import Trajectory


class StepReports:
    """Tells progress and resume points. For a step with a preview the VAE worker does it, once that is rendered.

    Args:
        jobs: the VAE worker's.
        resume_interval_s: seconds between two resume points of an image.
    """

    def __init__(self, jobs: Jobs, resume_interval_s: float) -> None:
        self._jobs = jobs
        self._resume_interval_s = resume_interval_s

    def tell_step(self, rows: Sequence[Trajectory]) -> None:
        """Tell each row's progress, and its resume point where the last one is `resume_interval_s` old."""
        for row in rows:
            progress = row.pass_.progress(row.step_index)
            if row.denoised is not None:
                self._jobs.put(PreviewJob(pass_=row.pass_, latents=row.denoised, progress=progress))
            else:
                row.pass_.tell(progress)
            now = time.monotonic()
            if now - (row.saved_at or now) >= self._resume_interval_s:
                row.saved_at = now
                self.tell_resume_points([row])

    def tell_resume_points(self, rows: Sequence[Trajectory]) -> None:
        """Tell where each row is, whether that is due or not."""
        for row in rows:
            tell = row.pass_.callbacks.on_resume_point
            if tell is not None:
                tell(row.resume_point())
