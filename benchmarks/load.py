"""An open-loop load generator in a process of its own: requests leave when they are due, whatever has come back.

Latency counts from the scheduled pending, so a server that holds its callers up cannot hide it.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import httpx

Arrivals = Literal["poisson", "gamma"]
TIMEOUT_SECONDS = 300.0
GAMMA_CV = 3.0


@dataclass(frozen=True)
class Outcome:
    """One request: seconds from its scheduled pending to its last byte, and the HTTP status (0: no answer)."""

    seconds: float
    status: int


def draw_arrivals(kind: Arrivals, rate: float, count: int, seed: int = 0) -> list[float]:
    """`count` pending times in seconds, `rate` a second on average; `gamma` gaps come in bursts (CV 3)."""
    dice = random.Random(seed)
    shape = 1.0 if kind == "poisson" else GAMMA_CV**-2
    due, times = 0.0, []
    for _ in range(count):
        times.append(due)
        due += dice.gammavariate(shape, 1 / (rate * shape))
    return times


def send_load(url: str, bodies: Sequence[dict[str, Any]], pending: Sequence[float]) -> list[Outcome]:
    """Run the generator's process; body i is sent at `pending[i]`."""
    plan = json.dumps({"url": url, "bodies": list(bodies), "pending": list(pending)})
    done = subprocess.run([sys.executable, __file__], input=plan, capture_output=True, text=True, check=True)
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


async def send_all(url: str, bodies: Sequence[dict[str, Any]], pending: Sequence[float]) -> list[Outcome]:
    """Every request in its own task."""
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=httpx.Limits()) as client:
        start = time.monotonic() + 0.1

        async def send(body: dict[str, Any], due: float) -> Outcome:
            await asyncio.sleep(start + due - time.monotonic())
            try:
                answer = await client.post(url, json=body)
                status = answer.status_code
            except httpx.TransportError:
                status = 0
            return Outcome(time.monotonic() - start - due, status)

        return await asyncio.gather(*(send(body, due) for body, due in zip(bodies, pending, strict=True)))


if __name__ == "__main__":
    plan = json.load(sys.stdin)
    print(json.dumps([asdict(outcome) for outcome in asyncio.run(send_all(**plan))]))
