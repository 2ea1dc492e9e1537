"""Fused operators: each has a plain PyTorch reference and, where `pygan._C` was built, a native kernel."""

from pygan.ops.bias_act import bias_act
from pygan.ops.conv2d_resample import conv2d_resample
from pygan.ops.extension import backend, backend_reason, build_info, check_build, plain_operators
from pygan.ops.grid_sample import grid_sample
from pygan.ops.group_spectral_sigma import group_spectral_sigma
from pygan.ops.modulated_conv2d import modulated_conv2d
from pygan.ops.source_hash import csrc_digest
from pygan.ops.spectral_norm import spectral_norm, spectral_normalize, spectral_sigma
from pygan.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "backend",
    "backend_reason",
    "bias_act",
    "build_info",
    "check_build",
    "conv2d_resample",
    "csrc_digest",
    "downsample2d",
    "filter2d",
    "grid_sample",
    "group_spectral_sigma",
    "modulated_conv2d",
    "plain_operators",
    "setup_filter",
    "spectral_norm",
    "spectral_normalize",
    "spectral_sigma",
    "upfirdn2d",
    "upsample2d",
]
