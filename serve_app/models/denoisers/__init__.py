"""What runs a denoiser on a batch of unlike rows: the UNet, and the executors under it.

Text encoders, guidance and samplers live elsewhere: a denoiser gets tensors and returns the model output.
"""
