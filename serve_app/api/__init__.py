"""The HTTP application: one folder for each API, and what they share: keys, limits, error responses, the dispatcher.

Nothing here runs a model or imports Ray; images come from a `Service`, which the ingress deployment implements.
"""
