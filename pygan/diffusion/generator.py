"""A denoiser as a generator of pictures, with the interface of every generator: `G(z, c) = body(stem(z, c), c)`.

z is the noise that the sampler starts from, so the same z is the same picture whatever the batch, as with a GAN.
"""

import copy
import math

from torch import Tensor, nn

from pygan.diffusion.precond import Preconditioned
from pygan.diffusion.sampler import heun
from pygan.draws import Draws


class Generator(nn.Module):
    """Pictures by EDM's Heun method without fresh noise: z `[N, z_dim]` to float32 `[N, *shape]`, about [-1, 1].

    Args:
        shape: of a picture.
        num_classes: 0: without labels.
        steps: noise levels; the network is evaluated 2 steps - 1 times.
    """

    def __init__(self, denoiser: Preconditioned, shape: tuple[int, int, int], num_classes: int, steps: int) -> None:
        super().__init__()
        self.denoiser, self.shape, self.num_classes, self.steps = denoiser, shape, num_classes, steps
        self.z_dim = math.prod(shape)

    def stem(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Return the noise in the shape of pictures."""
        return z.unflatten(1, self.shape)

    def body(self, h: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return heun(self.denoiser, h, steps=self.steps, labels=c).float()

    def forward(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.body(self.stem(z, c), c)

    def with_steps(self, steps: int) -> "Generator":
        """Return this generator with another number of noise levels; the weights are shared."""
        other = copy.copy(self)
        other.steps = steps
        return other
