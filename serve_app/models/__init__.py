"""Model checkpoints: loading them, encoding prompts, predicting, decoding latents; `ModelFamily` is the contract.

Nothing here knows requests, batches, HTTP or Ray: the engine decides what runs, and samplers are in diffusion/.
"""
