"""A network as a denoiser: what it sees and what its output means at every noise level.

D(z, sigma) = c_skip z + c_out F(c_in z, ln(sigma) / 4) with z = x0 + sigma eps and, by what F predicts:

| target | c_skip | c_out | c_in |
|---|---|---|---|
| edm | sd^2 / (sigma^2 + sd^2) | sigma sd / sqrt(sigma^2 + sd^2) | 1 / sqrt(sigma^2 + sd^2) |
| eps | 1 | -sigma | 1 / sqrt(sigma^2 + 1) |
| v | 1 / (sigma^2 + 1) | -sigma / sqrt(sigma^2 + 1) | 1 / sqrt(sigma^2 + 1) |
| x0 | 0 | 1 | 1 / sqrt(sigma^2 + sd^2) |

where sd is the standard deviation of the data's values. edm: Karras et al., NeurIPS 2022, arXiv 2206.00364, table 1;
eps: Ho, Jain and Abbeel, NeurIPS 2020, arXiv 2006.11239, whose x_t is c_in z; v: Salimans and Ho, ICLR 2022, arXiv
2202.00512. 1 / c_out^2 is the weight of x0's squared error that makes it the squared error of F's target.

Differs from the official codes in: every form is told ln(sigma) / 4, where DDPM tells its network the step t.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pygan.diffusion.schedule import checked_sigma, per_picture

Target = Literal["edm", "eps", "v", "x0"]
"""What a network predicts."""


class Coefficients(NamedTuple):
    """Factors of a denoiser at noise levels, float32 in the levels' shape."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor
    """What the network is told of the level."""


def coefficients(target: Target, sigma: float | Tensor, sigma_data: float) -> Coefficients:
    """Return the factors at `sigma`, computed in float64 and rounded to float32.

    Raises:
        ValueError: a level that is not above 0, or an unknown target.
    """
    sigma = checked_sigma(sigma)
    data = sigma_data if target in ("edm", "x0") else 1.0
    variance = sigma.square() + data**2
    if target == "edm":
        skip, out = data**2 / variance, sigma * data / variance.sqrt()
    elif target == "eps":
        skip, out = torch.ones_like(sigma), -sigma
    elif target == "v":
        skip, out = 1 / variance, -sigma / variance.sqrt()
    elif target == "x0":
        skip, out = torch.zeros_like(sigma), torch.ones_like(sigma)
    else:
        raise ValueError(f"got the target {target!r}, expected edm, eps, v or x0")
    return Coefficients(*(value.float() for value in (skip, out, variance.rsqrt(), sigma.log() / 4)))


class Preconditioned(nn.Module):
    """A denoiser out of a network `F(x, noise, c, **more)`, x `[N, ...]`, noise `[N]`, c int64 `[N]` or None.

    Coefficients and their sum with z are float32 also under autocast, where F alone computes with fewer bits.

    Args:
        sigma_data: standard deviation of the data's values; of no effect on eps and v.
    """

    def __init__(self, network: nn.Module, *, target: Target = "edm", sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network, self.target, self.sigma_data = network, target, sigma_data

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None, **more: Any) -> Tensor:
        """Return the estimate of x0 in the shape and dtype of z = x0 + sigma eps.

        Args:
            sigma: above 0; a number, or `[N]`.
            labels: classes, int64 `[N]`.
            more: handed to the network.

        Raises:
            ValueError: a level that is not above 0.
        """
        factors = coefficients(self.target, sigma, self.sigma_data)
        skip, out, into, noise = (factor.to(z.device) for factor in factors)
        x = z.float()
        value = self.network(per_picture(into, x) * x, noise.expand(len(z)), labels, **more).float()
        return (per_picture(skip, x) * x + per_picture(out, x) * value).to(z.dtype)

    forward = denoise
