"""From a config to modules on a device: finding files, reading both layouts, choosing device and precision.

What the modules are used for is decided by the families.
"""
