"""Scoring and showing predictions: starts from arrays or a CSV and knows nothing of how they were made."""
