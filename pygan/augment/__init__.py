"""Augmentations that every discriminator sees its pictures through: `augment(img, draws)`."""

KINDS = ("diffaug", "ada", "apa")
