"""`EngineCounters`: what an engine has done so far, for metrics and health checks."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class EngineCounters:
    """What the engine has done so far, and the seconds of its last step.

    `out_of_memory` counts the tries that did not fit into the device's memory, whether they succeeded later or not.
    """

    steps: int = 0
    model_rows: int = 0
    rows_in_flight: int = 0
    cancelled: int = 0
    padded_rows: int = 0
    prompts_known: int = 0
    prompts_encoded: int = 0
    out_of_memory: int = 0
    step_seconds: float = 0.0
