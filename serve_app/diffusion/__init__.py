"""Pure maths of diffusion: sampler tables, the batched step, guidance, noise.

No models, requests or threads live here; only the table compiler knows diffusers.
"""
