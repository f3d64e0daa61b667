"""Models that come with the package."""

from pathlib import Path

BUILTIN_MODELS = {"emoji": Path(__file__).parent / "emoji"}
