"""Darkroom's own API: `/txt2img/`, `/v1/generate` and `/v1/presets`, with every parameter.

Its bodies are the declarations of requests/params.py; other APIs' words live beside this package.
"""
