"""Continuous batching: from a `GenerationRequest` to a `GeneratedImage`, for one checkpoint on one device.

HTTP, Ray and the layers of a model do not live here: see `api`, `deployments` and `models`.
"""
