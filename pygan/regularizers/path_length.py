"""Path length: Karras, Laine, Aittala, Hellsten, Lehtinen and Aila, "Analyzing and Improving the Image Quality of
StyleGAN", CVPR 2020 (arXiv 1912.04958), eq. 4.

A step of fixed length in the intermediate latent space should change the picture by a fixed amount. With J the Jacobian
of the picture by ws and y a picture of unit noise, |J^T y| is held near its own moving average a:
`weight * E (|J^T y| - a)^2`. Evaluated lazily, on half of the latents (`batch_shrink`).

As in the official code: noise is divided by the square root of the picture's pixels, the square of a length is the mean
over the layers' ws, and the average moves before it is used, gradients flowing through its newest share. Latents, mixed
styles and noise inputs are those of a training step; no discriminator and no augmentation take part.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.draws import Draws
from pygan.errors import ConfigError
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["path_length"] = "path_length"
    weight: float = Field(default=2.0, gt=0)
    """Factor of the term."""
    decay: float = Field(default=0.01, gt=0, le=1)
    """Share of the newest lengths in their moving average."""
    batch_shrink: int = Field(default=2, ge=1)
    """The term uses the first `1 / batch_shrink` of the batch, one latent at least."""
    every: int = Field(default=4, ge=1)
    """Steps between two evaluations."""

    def build(self, ctx: Context) -> "PathLength":
        return PathLength(self.weight, self.decay, self.batch_shrink, self.every).to(ctx.device)


class PathLength(nn.Module):
    """Spread of the path lengths around their moving average `mean`, which is its state."""

    phases = ("G",)

    def __init__(self, weight: float, decay: float, batch_shrink: int, every: int) -> None:
        super().__init__()
        self.weight = weight
        self.decay = decay
        self.batch_shrink = batch_shrink
        self.every = every
        self.register_buffer("mean", torch.zeros([]))

    def forward(self, step: Step) -> Tensor:
        """Return the penalty.

        Raises:
            ConfigError: the generator has no intermediate latent space.
        """
        if not hasattr(step.G, "mapping"):
            raise ConfigError(
                f"regularizers: path_length needs a base with an intermediate latent space such as stylegan2, "
                f"{type(step.G).__module__.rsplit('.', 1)[-1]} has none"
            )
        n = max(len(step.index) // self.batch_shrink, 1)
        draws = Draws(step.seed, f"path_length/{step.phase}", step.index[:n])
        c = None if step.gen_c is None else step.gen_c[:n]
        ws = step.G.stem(step.gen_z[:n], c, draws)
        lengths = path_lengths(ws, step.G.body(ws, c, draws), draws)
        mean = self.mean.lerp(lengths.mean(), self.decay)
        self.mean.copy_(mean.detach())
        return self.weight * (lengths - mean).square().mean()


def path_lengths(ws: Tensor, img: Tensor, draws: Draws) -> Tensor:
    """Return how far each picture moves with its latents, `[N]`, in a random direction; differentiable.

    Args:
        ws: `[N, num_ws, w_dim]`.
        img: made from `ws`, `[N, C, H, W]`.
        draws: of the direction.
    """
    direction = draws.normal(*img.shape[1:]) / math.sqrt(img.shape[2] * img.shape[3])
    (gradient,) = torch.autograd.grad((img * direction).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
