"""The OpenAI Images API: generations, edits, variations, and the list of models.

Only OpenAI's own names, shapes and errors are here; what a request means is decided in `requests/`.
"""
