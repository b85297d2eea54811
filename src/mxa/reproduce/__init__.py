"""The paper's experiments [7], fairly: a grid of runs of which each differs from another in one named thing."""
