"""Metrics of a model's queue in the ingress: what waits, what is refused, and what lost replicas lead to."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

from ray.serve.metrics import Counter, Gauge, Histogram

from serve_app.deployments.lost_work import LossReason
from serve_app.deployments.metrics import MODEL, MODEL_REASON, NOTHING
from serve_app.deployments.policies.admission import start_ratio
from serve_app.errors import Overloaded

PERIOD_SECONDS = 1.0
START_RATIOS = [0.1, 0.25, 0.5, 0.8, 1.25, 2, 4, 10]
"""Buckets of the real wait over the estimated one. Between 0.5 and 2, the estimate was right within a factor of two."""

LIMITS = ("queue_full", "deadline")
"""The words of `Overloaded` that a queue uses."""


@dataclass(frozen=True)
class QueueSample:
    """What waits in a queue.

    Args:
        waiting_images: images that no replica has.
        waiting_seconds: their device time.
        estimated_wait_seconds: when a replica would take a request that came now.
        deadline_seconds: the deadline of a request that gives none.
    """

    waiting_images: int
    waiting_seconds: float
    estimated_wait_seconds: float
    deadline_seconds: float


class QueueMetrics:
    """Metrics of one model's queue at one ingress replica. A reason is one of a few words."""

    def __init__(self, model: str = "model") -> None:
        self._model = {"model": model}
        self._gauges = {
            "waiting_images": Gauge("darkroom_waiting_images", "Images that no replica has.", MODEL),
            "waiting_seconds": Gauge("darkroom_waiting_seconds", "Device seconds that no replica has.", MODEL),
            "estimated_wait_seconds": Gauge(
                "darkroom_estimated_wait_seconds", "Seconds until a replica would take a new request.", MODEL
            ),
            "deadline_seconds": Gauge("darkroom_deadline_seconds", "The deadline of requests that give none.", MODEL),
        }
        reasons = get_args(LossReason)
        self._refused = self._counter("darkroom_queue_refusals", "Images refused.", LIMITS)
        self._resumed = self._counter("darkroom_resumes", "Images that a replica lost: they wait again.", reasons)
        self._given_up = self._counter("darkroom_replicas_given_up", "Replicas that are dead, or were killed.", reasons)
        self._convicted = self._counter("darkroom_convictions", "Images that ended every replica.")
        self._handed_over = self._counter("darkroom_hand_overs", "Replicas that handed their images over.")
        self._ratio = Histogram(
            "darkroom_start_ratio",
            "How long an image waited for a replica, over the estimate at its admission.",
            boundaries=START_RATIOS,
            tag_keys=MODEL,
        )
        self._sampling: asyncio.Task[None] | None = None

    def _counter(self, name: str, text: str, reasons: Iterable[str] = ()) -> Counter:
        """A counter that stands at zero for each reason, or as a whole."""
        counter = Counter(name, text, tag_keys=MODEL_REASON if reasons else MODEL)
        for tags in [{"reason": reason} for reason in reasons] or [{}]:
            counter.inc(NOTHING, tags={**self._model, **tags})
        return counter

    def follow(self, sample: Callable[[], QueueSample]) -> None:
        """Tell each second what waits. Call it on the event loop; only the first call counts."""
        self._sampling = self._sampling or asyncio.create_task(self._sample_for_ever(sample))

    async def _sample_for_ever(self, sample: Callable[[], QueueSample]) -> None:
        while True:
            self.tell(sample())
            await asyncio.sleep(PERIOD_SECONDS)

    def tell(self, sample: QueueSample) -> None:
        """What waits now. Ray forgets a gauge that is not set for some 20 s."""
        for name, gauge in self._gauges.items():
            gauge.set(getattr(sample, name), tags=dict(self._model))

    @contextmanager
    def counting_refusals(self, images: int) -> Iterator[None]:
        """While inside, Overloaded refuses so many images."""
        try:
            yield
        except Overloaded as error:
            self._refused.inc(images, tags={**self._model, "reason": error.limit})
            raise

    def note_loss(self, reason: LossReason) -> None:
        """A replica no longer draws an image."""
        self._resumed.inc(tags={**self._model, "reason": reason})

    def note_convicted(self, is_convicted: bool) -> None:
        """An image has ended; if it is convicted, because it ended every replica that drew it."""
        if is_convicted:
            self._convicted.inc(tags=dict(self._model))

    def note_end(self, reason: LossReason) -> None:
        """A replica is given up."""
        self._given_up.inc(tags={**self._model, "reason": reason})

    def note_hand_over(self) -> None:
        """A replica that is about to stop has handed its images over."""
        self._handed_over.inc(tags=dict(self._model))

    def note_start(self, estimated_s: float, waited_s: float) -> None:
        """A replica takes an image for the first time."""
        ratio = start_ratio(estimated_s, waited_s)
        if ratio is not None:
            self._ratio.observe(ratio, tags=dict(self._model))
