"""What the ingress decides: which request goes next, to which replica, which are refused, and which may be poison.

Each policy is small and pure: it takes a clock, does no I/O, and knows no Ray, so that it can be simulated.
"""
