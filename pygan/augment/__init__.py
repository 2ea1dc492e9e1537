"""Augmentations that every discriminator sees its pictures through: `augment(img, draws)`.

One with `labeled(img, draws)` also says what it did, so a denoiser can be told.
"""

KINDS = ("diffaug", "ada", "apa", "labeled_warp")
