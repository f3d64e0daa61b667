"""`Idempotency-Key`: which requests are one request that was sent again, and which seed it draws."""

import json
import re
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

from serve_app.errors import InvalidIdempotencyKey
from serve_app.requests.params import GenerationParams, SamplingParams
from serve_app.requests.request import CallerContext
from serve_app.requests.resolve import LARGEST_DRAWN_SEED

IDEMPOTENCY_HEADER = "Idempotency-Key"
VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")
FILES = ("image", "mask")
NOT_DRAWN = ("priority", "deadline_ms")
"""Parameters that may differ between a request and its retry: they do not change the image."""


@dataclass(frozen=True)
class RequestKey:
    """A caller's key. `text` is as it was sent. `digest` is of the owner too, so keys of two owners never meet."""

    text: str
    digest: str

    @classmethod
    def of(cls, owner: str, text: str) -> Self:
        """The key of one owner. Raises InvalidIdempotencyKey."""
        if not VISIBLE_ASCII.fullmatch(text):
            raise InvalidIdempotencyKey(IDEMPOTENCY_HEADER, text, "must be 1 to 255 visible ASCII characters")
        return cls(text, sha256(json.dumps([owner, text]).encode()).hexdigest())

    def reused(self) -> InvalidIdempotencyKey:
        """The error of a request that differs from the one that had this key before."""
        return InvalidIdempotencyKey(
            IDEMPOTENCY_HEADER, self.text, "must be a new one, or come with the same parameters as before"
        )


def image_key(digest: str, index: int) -> str:
    """The key of image number `index` of a request."""
    return f"{digest}/{index}"


def context_of_image(context: CallerContext, index: int) -> CallerContext:
    """The context of one image of a request: each has a key of its own, where the request has one."""
    if not context.idempotency_key:
        return context
    return replace(context, idempotency_key=image_key(context.idempotency_key, index))


def image_keys(digest: str, images: int) -> list[str]:
    """The keys of all images of a request."""
    return [image_key(digest, index) for index in range(images)]


def fingerprint_of(params: GenerationParams, model: str) -> str:
    """Equal for a request and its retry: what is asked of the served `model`, with a hash of each file."""
    left_out = {*SamplingParams.model_fields, *FILES, *NOT_DRAWN}
    values = params.model_dump(include=set(GenerationParams.model_fields) - left_out)
    values |= {"model": model, "sampling": params.sampling}
    for name in FILES:
        content = getattr(params, name)
        values[name] = None if content is None else sha256(content).hexdigest()
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def with_seeds(params: GenerationParams, key: RequestKey) -> GenerationParams:
    """The parameters with the seeds that are not given taken from the key, so that a retry draws the same image."""
    seeds = {name: seed_from(key, name) for name in ("seed", "subseed") if getattr(params, name) is None}
    return params.model_copy(update=seeds)


def seed_from(key: RequestKey, name: str) -> int:
    """A seed that follows from the key, as random as a drawn one."""
    return int.from_bytes(sha256(f"{name} {key.digest}".encode()).digest()[:8]) % (LARGEST_DRAWN_SEED + 1)
