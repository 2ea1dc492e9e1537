"""Coefficients of every form, and what a denoiser returns."""

import math

import pytest
import torch
from torch import nn

from pygan.diffusion.precond import Preconditioned, coefficients
from pygan.diffusion.schedule import Level

SIGMAS = torch.logspace(-3, 2, 40, dtype=torch.float64)


class Constant(nn.Module):
    """A network that answers the same, whatever it is asked, and remembers what it was told."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value, self.seen = value, []

    def forward(self, x, noise, c=None, **more):
        self.seen.append((x, noise, c, more))
        return self.value.to(x)


@pytest.mark.parametrize("sigma_data", [0.25, 0.5])
def test_inputs_and_targets_of_edm_have_unit_variance_at_every_level(sigma_data):
    factors = coefficients("edm", SIGMAS, sigma_data)
    variance = SIGMAS.square() + sigma_data**2
    weight = variance / (SIGMAS * sigma_data).square()  # lambda of EDM's table 1
    torch.testing.assert_close((weight * factors.out.double().square()), torch.ones(40).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close((factors.into.double().square() * variance), torch.ones(40).double(), rtol=1e-6, atol=0)
    # F's target (x0 - c_skip z) / c_out = ((1 - c_skip) x0 - c_skip sigma eps) / c_out
    skip, out = factors.skip.double(), factors.out.double()
    target = (((1 - skip) * sigma_data).square() + (skip * SIGMAS).square()) / out.square()
    torch.testing.assert_close(target, torch.ones(40).double(), rtol=2e-5, atol=0)


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_a_network_that_predicts_its_target_exactly_returns_the_picture(target):
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(40, 3, 2, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    level = Level.ve(SIGMAS)
    z = level.noisy(x0, eps)
    denoiser = Preconditioned(Constant(level.from_x0(target, z, x0)), target=target)
    error = (denoiser.denoise(z, SIGMAS) - x0).abs().flatten(1).amax(1)
    assert (error <= 1e-5 * (1 + SIGMAS)).all()  # z is rounded to float32 at its own size


def test_the_network_sees_scaled_pictures_the_level_and_what_else_is_handed_over():
    network = Constant(torch.zeros(1))
    labels, augment = torch.tensor([2, 0]), torch.ones(2, 6)
    z = torch.randn(2, 3, 4, 4)
    Preconditioned(network, sigma_data=0.5).denoise(z, 2.0, labels, augment=augment)
    x, noise, c, more = network.seen[0]
    torch.testing.assert_close(x, z / math.sqrt(4 + 0.25))
    torch.testing.assert_close(noise, torch.full([2], math.log(2) / 4))
    assert c is labels and more["augment"] is augment


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5), (3, 1, 4, 4)])
def test_shape_and_dtype_are_those_of_z_and_the_computation_is_float32(shape, dtype):
    network = Constant(torch.zeros(1))
    estimate = Preconditioned(network).denoise(torch.ones(shape, dtype=dtype), torch.tensor([0.1, 1.0, 10.0]))
    assert (estimate.shape, estimate.dtype) == (shape, dtype)
    assert network.seen[0][0].dtype == network.seen[0][1].dtype == torch.float32


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_a_level_that_is_not_above_zero_is_refused(sigma):
    with pytest.raises(ValueError, match=r"got sigma .*, expected a number above 0"):
        Preconditioned(nn.Identity()).denoise(torch.zeros(1, 2), sigma)


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="got the target 'score', expected edm, eps, v or x0"):
        coefficients("score", 1.0, 0.5)
