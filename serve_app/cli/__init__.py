"""The `darkroom` command line: check a config file, start a server.

Nothing here knows a model or a request: the commands use the config classes and the Serve graph of `serve run`.
"""
