"""ASGI middleware: access log, authentication, limits of bodies, security headers, tracing; the edge before Serve.

Nothing here reads what a request asks for. The limits of each caller are in `api/usage.py`.
"""
