"""Step curves to simulate with. `python benchmarks/rows.py` measures those of a machine."""

from collections.abc import Mapping

from serve_app.requests.step_curve import StepCurve


def line(side: int, fixed: float, per_row: float, most: int = 32) -> StepCurve:
    """A step has a fixed time, and one for each row. `side` is the latent's; seconds are in milliseconds here."""
    widths = [1 << power for power in range(most.bit_length())]
    return StepCurve(size=(side, side), seconds={rows: (fixed + per_row * rows) / 1e3 for rows in widths})


CURVES: Mapping[str, StepCurve] = {
    # The built-in model at 128 px in OpenVINO, on two cores of a CPU: measured.
    "two cores": StepCurve(size=(16, 16), seconds={1: 0.015, 2: 0.018, 8: 0.048, 16: 0.074, 32: 0.128}),
    # A GPU that one row does not fill: what SD 1.5 at 512 px is expected to be like on an H100.
    "small UNet": line(64, fixed=6.0, per_row=1.7),
    # SDXL at 1024 px on the same.
    "large UNet": line(128, fixed=20.0, per_row=12.5),
    # One row fills the device, and a wider batch gains nothing.
    "saturated": line(32, fixed=0.0, per_row=12.5),
}
"""Name to curve."""
