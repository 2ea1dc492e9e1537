"""Sparse sub-networks: a pruner turns trained weights and the mask so far into the next mask."""

KINDS = ("lottery", "random", "transfer")
