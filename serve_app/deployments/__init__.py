"""The Serve graph: the ingress, the models' replicas and the safety checker, with their queues, metrics and traces.

No tensors and no routes live here. Importing this package loads no torch: what needs it is imported where it is loaded.
"""
