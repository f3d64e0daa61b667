"""ASGI middleware: the access log, authentication, body limits and tracing of every HTTP request.

Nothing here knows a route or a model; the limits of each caller are in `api/usage.py`.
"""
