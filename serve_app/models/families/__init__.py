"""One file for each model family: how prompts become conditioning, and how a batch of rows is predicted.

The contract is models/model_family.py, and the table of families models/load_family.py; shared parts live in their own
folders.
"""
