"""LoRAs: reading their files, keeping them in memory, applying them to single rows of a batch.

Which LoRAs a request may use is decided in requests/.
"""
