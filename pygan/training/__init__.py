"""Training loops and what they keep: average, statistics, resumable state."""
