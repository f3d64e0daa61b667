"""Scheduler configs of checkpoints: Stable Diffusion 1's, and one for v-prediction with a signal close to zero."""

EPSILON: dict[str, object] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
}
VELOCITY: dict[str, object] = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": False,
    "prediction_type": "v_prediction",
}
SAMPLE: dict[str, object] = {**EPSILON, "prediction_type": "sample"}
CANNOT_FOLLOW_SAMPLE = ("dpm2", "dpm2_a", "euler_a", "pndm")
