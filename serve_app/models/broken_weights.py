"""The errors that loaders raise for a file of weights that is broken, or is of something else."""

from safetensors import SafetensorError

BROKEN_WEIGHTS = (
    SafetensorError,
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    StopIteration,
)
"""diffusers and torch check little: a key that is missing is a KeyError, a shape of no dimensions an IndexError."""
