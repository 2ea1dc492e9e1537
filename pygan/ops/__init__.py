"""Fused operators: each has a plain PyTorch reference and, where `pygan._C` was built, a native kernel."""

from pygan.ops.bias_act import bias_act
from pygan.ops.extension import backend, backend_reason, build_info, check_build
from pygan.ops.source_hash import csrc_digest
from pygan.ops.spectral_norm import spectral_norm, spectral_sigma

__all__ = [
    "backend",
    "backend_reason",
    "bias_act",
    "build_info",
    "check_build",
    "csrc_digest",
    "spectral_norm",
    "spectral_sigma",
]
