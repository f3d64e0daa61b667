"""Pure maths of diffusion: sampler tables, the batched step, guidance, noise.

No models or requests live here; only `new_scheduler` imports diffusers.
"""
