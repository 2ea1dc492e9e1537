"""Diffusion models and what they owe their training set.

A *denoiser* is any object with `denoise(z, sigma, labels=None) -> Tensor`: z = x0 + sigma * eps (the form of EDM,
Karras et al., NeurIPS 2022, arXiv 2206.00364) of shape `[N, C, H, W]` or `[N, D]`, pictures in [-1, 1], sigma a float
or `[N]`; it returns its estimate of x0 in z's shape and dtype. Samplers and measures take any of them. A stage imports
from the modules, so that it depends on those alone; the names below are for a prompt.
"""

from importlib import import_module
from typing import Any

KINDS = ("denoising", "chain")
"""What a denoiser can be trained by."""

HOMES = (
    ("EmpiricalOptimum", "empirical_optimum"),
    ("ChainOptimum", "chain_optimum"),
    ("GaussianDenoiser", "gaussian"),
    ("predict", "denoiser"),
    ("Level", "schedule"),
    ("heun", "sampler"),
    ("ddim", "sampler"),
    ("ancestral", "sampler"),
)
"""Public names and the modules that they come from."""


def __getattr__(name: str) -> Any:
    """Bring a public name on first use."""
    home = dict(HOMES).get(name)
    if home is None:
        raise AttributeError(f"module 'pygan.diffusion' has no attribute {name!r}")
    return getattr(import_module(f"pygan.diffusion.{home}"), name)
