"""ASGI middleware: the access log, authentication, body limits and tracing of every HTTP request.

Nothing here knows a route or draws an image; limits of what a caller may draw are in `api/rate_limits.py`.
"""
