"""From a prompt to hidden states: weights, chunks of 75 tokens, textual inversions, CLIP text encoders.

Which of the states condition the denoiser is decided by the families.
"""
