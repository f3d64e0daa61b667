"""AUTOMATIC1111's API, `/sdapi/v1` and `/internal/progress`: its bodies, its words and its responses.

Requests become `GenerationParams` here; nothing of AUTOMATIC1111's is known outside.
"""
