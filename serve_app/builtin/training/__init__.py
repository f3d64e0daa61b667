"""The script that trains the built-in model, stage by stage.

Serving never imports it.
"""
