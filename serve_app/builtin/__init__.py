"""Models that come with the package: their weights, their model card, and the script that trained them.

How checkpoints are loaded and served lives in models/.
"""

from pathlib import Path

BUILTIN_MODELS = {"emoji": Path(__file__).parent / "emoji"}
