"""Garbage collection around the import of large libraries. Imports no torch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_gc() -> Iterator[None]:
    """Collect no garbage inside, and never look again at the objects that exist afterwards.

    Importing torch, diffusers and transformers makes a million objects that stay. Collections during the import take a
    fifth of its time, and each full one after it would hold up the denoising thread for a quarter of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
