"""From files to batches: readers, decoding, checks."""
