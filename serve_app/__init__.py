"""Darkroom: text-to-image serving on Ray Serve. docs/architecture.md tells the way of one request through the packages.

Nothing is imported here, so that importing one part does not load the others.
"""
