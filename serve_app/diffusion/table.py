"""A sampler as a table: the linear recurrence that a diffusers scheduler performs, and its batched step."""

from dataclasses import dataclass

import torch

STATE_SLOTS = 4
"""The most latent-sized tensors that a sampler may keep.

Every row's state is padded to it, so that the shape of the batched step, and with it the rounding, does not depend on
the other rows: images stay bit-identical whatever shares the batch.
"""


@dataclass(frozen=True, kw_only=True)
class SamplerTable:
    """One sampler, schedule and step count, for one checkpoint, as numbers.

    A trajectory's state is `s = [x, h1 .. hK]`: the latents and what a multistep sampler remembers. Model call `i`
    gives the output `e` for `input_scale[i] * x` at `timesteps[i]`; with fresh unit noise `n` the next state is
    `s' = A[i] s + B[i] e + D[i] n`. `steps[i]` is the matrix `[A | B | D]`.

    Shapes: `steps` (calls, slots, slots + 2), `input_scale` (calls,), both float64; `timesteps` (calls,) float32.
    `draws_noise[i]` says whether call `i` draws from the request's generator, even where the draw has no effect.

    `noising` is (calls + 1, 2) float64: clean latents `z`, noised to where call `i` begins, are
    `noising[i, 0] * z + noising[i, 1] * n`. The last row, after all calls, is (1, 0).
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
        """Model calls from noise to image; Heun and DPM2 make about two per step."""
        return len(self.draws_noise)

    @property
    def num_slots(self) -> int:
        """Latent-sized tensors in the state, 1 + K."""
        return self.steps.shape[1]

    @property
    def num_bytes(self) -> int:
        """What its tensors take."""
        tensors = (self.steps, self.input_scale, self.timesteps, self.noising)
        return sum(one.numel() * one.element_size() for one in tensors)

    def denoise(self, call: int, latents: torch.Tensor, model_output: torch.Tensor) -> torch.Tensor:
        """The model's estimate of the clean latents, from the input and output of model call `call`.

        In the inner calls of Heun and DPM2 the noise level is the outer step's, which is close enough for a preview.
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


def pad_matrices(steps: torch.Tensor) -> torch.Tensor:
    """`[A | B | D]` (calls, k, k + 2) to (calls, STATE_SLOTS, STATE_SLOTS + 2): B and D stay the last two columns."""
    calls, known, _ = steps.shape
    padded = torch.zeros(calls, STATE_SLOTS, STATE_SLOTS + 2, dtype=steps.dtype)
    padded[:, :known, :known] = steps[:, :, :known]
    padded[:, :known, STATE_SLOTS:] = steps[:, :, known:]
    return padded
