"""Base networks: each kind is a generator and a discriminator that every method runs on, or a network for denoising.

`G(z, c, draws) = G.body(G.stem(z, c, draws), c, draws)` and `D(img, c) = D.head(D.features(img), c)`: methods that act
between layers cut there. `draws` is for networks with noise of their own; None and networks without: none.
"""

KINDS = ("dcgan", "sngan", "biggan", "stylegan2", "unet")
