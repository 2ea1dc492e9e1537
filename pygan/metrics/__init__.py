"""Distances between real and generated pictures, computed from features of a frozen network."""

KINDS = ("fid", "kid", "prdc", "intra", "memorization", "inception_score", "cmmd")
