"""The command `darkroom`: it checks a Serve config file, and serves one on a Ray cluster of its own.

What a config may say lives in `config/`. Nothing here loads a model or reads a request.
"""
