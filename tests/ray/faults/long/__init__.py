"""Faults that take minutes each. None of these tests has passed yet: docs/reliability.md does not name them."""
