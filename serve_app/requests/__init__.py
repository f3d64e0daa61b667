"""What is asked and what comes back: request parameters, their resolution into decided requests, image files, events.

No tensors, HTTP or Ray live here: these objects cross process boundaries, and every layer above reads them.
"""
