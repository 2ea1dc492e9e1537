"""Base networks: each kind is a generator and a discriminator that every method runs on."""

KINDS = ("dcgan", "sngan")
