"""Learning from archived episodes: one file per algorithm, readable from top to bottom."""
