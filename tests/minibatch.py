"""Minibatch standard deviation of pictures of one kind, by its definition."""

import torch
from torch import Tensor


def std_alone(x: Tensor, group: int | None) -> Tensor:
    """Return what each sample of `x` `[N, C, H, W]` is told, `[N]` in float64.

    A group has `min(group, N)` samples, N where `group` is None, every (N / group)-th one. The deviation over the group
    is taken for each feature and pixel and averaged over them.
    """
    n = len(x)
    apart = n // min(group or n, n)
    groups = [x[i % apart :: apart].double() for i in range(n)]
    return torch.stack([((g - g.mean(0)).square().mean(0) + 1e-8).sqrt().mean() for g in groups])
