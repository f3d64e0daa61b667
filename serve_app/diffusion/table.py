"""A sampler as a table: the linear recurrence that a diffusers scheduler performs, and its batched step."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SamplerTable:
    """One sampler, schedule and step count, for one checkpoint, as numbers.

    A trajectory's state is `s = [x, h1 .. hK]`: the latents and what a multistep sampler remembers. With the model
    output `e` at `input_scale[i] * x`, `timesteps[i]` and fresh unit noise `n`, model call `i` takes it to
    `s' = A[i] s + B[i] e + D[i] n`; `steps[i]` is the matrix `[A | B | D]`.

    Shapes: `steps` (calls, slots, slots + 2), `input_scale` (calls,), both float64; `timesteps` (calls,) float32.
    `draws_noise[i]` says whether call `i` takes a draw from the request's generator, used or not.

    An image that is given, noised to where call `i` begins, is `noising[i, 0] * image + noising[i, 1] * n`; the last
    row, after all calls, is the image itself: (calls + 1, 2) float64.
    """

    steps: torch.Tensor
    input_scale: torch.Tensor
    timesteps: torch.Tensor
    draws_noise: tuple[bool, ...]
    init_noise_sigma: float
    noising: torch.Tensor
    prediction_type: str = "epsilon"

    @property
    def num_model_calls(self) -> int:
        """Model calls from noise to image; Heun and DPM2 make about two a step."""
        return len(self.draws_noise)

    @property
    def num_slots(self) -> int:
        """Latent-sized tensors in the state, 1 + K."""
        return self.steps.shape[1]

    def denoise(self, call: int, latents: torch.Tensor, model_output: torch.Tensor) -> torch.Tensor:
        """What the model takes the clean latents to be, from call `call`'s input and output.

        For a second-order sampler's inner calls the noise is the step's, which is near enough for a preview.
        """
        signal, noise = (float(value) for value in self.noising[call])
        if self.prediction_type == "sample":
            return model_output
        if self.prediction_type == "v_prediction":
            power = signal**2 + noise**2
            return signal / power * latents - noise / power**0.5 * model_output
        return (latents - noise * model_output) / signal


def advance(state: torch.Tensor, steps: torch.Tensor, model_output: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Move every row by its own table: `s' = [A | B | D] [s, e, n]`.

    Args:
        state: (rows, slots, c, h, w) float32; rows with fewer slots are padded with zeros.
        steps: (rows, slots, slots + 2) float32, padded with zeros likewise.
        model_output: (rows, c, h, w).
        noise: (rows, c, h, w), zeros for rows that draw none.

    Returns:
        The next state, shaped as `state`.
    """
    rows, slots = state.shape[:2]
    operands = torch.cat([state, model_output[:, None], noise[:, None]], dim=1)
    return torch.bmm(steps, operands.reshape(rows, slots + 2, -1)).reshape(state.shape)
