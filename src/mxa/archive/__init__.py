"""Predict archives: pictures by the million from files, folders and media, a row each, streamed and resumable.

Nothing here needs torch.
"""
