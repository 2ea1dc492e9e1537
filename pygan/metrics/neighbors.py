"""Exact nearest neighbors of pictures: as they are, and over a group of small changes.

A copy that was flipped, shifted by a few pixels or made brighter is a copy, and the distance of pixels does not see it.
`nearest_moved` therefore looks for the change that brings a training picture nearest. The change of brightness is not
searched but solved: with q and r the two pictures of D values without their means, and m the difference of the means,

    min over |b| <= limit of |x + b - y|^2 = |q - r|^2 + D max(|m| - limit, 0)^2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

_CHUNK = 1024
_SPARE = 4
_EXACT = 3


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """The nearest pictures of a set, nearest first."""

    distance: Tensor
    """float64 `[N, k]`: Euclidean, in the units of the pictures."""
    index: Tensor
    """int64 `[N, k]`: which pictures."""


@dataclass(frozen=True, kw_only=True)
class Moved(Neighbors):
    """The two nearest pictures over the group, and what takes the nearest one to the query.

    Query pixel (y, x), plus `brightness`, is compared with pixel (y + shift[0], x + shift[1]) of the picture, which was
    mirrored before where `flipped` is set. The distance is that of the pixels which every shift covers.
    """

    flipped: Tensor
    """bool `[N]`."""
    shift: Tensor
    """int64 `[N, 2]`: rows and columns, pixels."""
    brightness: Tensor
    """float64 `[N]`: added to the query."""


def nearest(query: Tensor, reference: Tensor, k: int = 2) -> Neighbors:
    """Return the `k` nearest rows of `reference` for each of `query`, in float64.

    The first of them are computed again from differences, so that a copy has distance 0 and not the root of a rounding
    error.

    Args:
        query: `[N, ...]`, any type.
        reference: `[M, ...]` of the same shape, M at least `k`.

    Raises:
        ValueError: shapes that don't fit, or too few rows.
    """
    _check(query, reference, k)
    x = query.flatten(1).double()
    keep = min(k + _SPARE, len(reference))
    found, index = _start(len(x))
    for start in range(0, len(reference), _CHUNK):
        y = reference[start : start + _CHUNK].flatten(1).double()
        squares = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
        columns = torch.arange(start, start + len(y)).expand(len(x), -1)
        found, (index,) = _merged((found, squares), [(index, columns)], keep)
    first = min(_EXACT, keep)
    for rows in torch.arange(len(x)).split(128):
        y = reference[index[rows, :first]].flatten(2).double()
        found[rows, :first] = (x[rows, None] - y).square().sum(2)
    found, order = found.clamp(min=0).sort(dim=1, stable=True)
    return Neighbors(distance=found[:, :k].sqrt(), index=index.gather(1, order)[:, :k])


def nearest_moved(query: Tensor, reference: Tensor, *, shift: int = 4, brightness: float = 0.5) -> Moved:
    """Return the two nearest different pictures of `reference` over flips, shifts and brightness.

    All of the group is searched in float32; the best are computed again from differences in float64.

    Args:
        query: float `[N, C, H, W]`.
        reference: float `[M, C, H, W]`, M at least 2.
        shift: pixels at most, up and down and to both sides; less than half a side.
        brightness: at most, in the units of the pictures, alike for all channels.

    Raises:
        ValueError: shapes that don't fit, too few pictures, or a shift that leaves nothing to compare.
    """
    _check(query, reference, 2)
    if query.dim() != 4 or 2 * shift >= min(query.shape[2:]):
        raise ValueError(f"expected pictures larger than twice a shift of {shift}, got {[*query.shape]}")
    height, width = (side - 2 * shift for side in query.shape[2:])
    inner = query[:, :, shift : shift + height, shift : shift + width].flatten(1)
    x_mean = inner.float().mean(1)
    x = inner.float() - x_mean[:, None]
    keep = min(2 + _SPARE, len(reference))
    found, index = _start(len(x), torch.float32)
    move, moves = torch.empty_like(index), 2 * (2 * shift + 1) ** 2
    for start in range(0, len(reference), 32):
        y, y_mean, y_square = _windows(reference[start : start + 32].float(), height, width)
        excess = ((y_mean[None] - x_mean[:, None]).abs() - brightness).clamp(min=0)
        # x sums to zero, so <x, y> is <x, y - mean of y>
        squares = torch.addmm(y_square, x, y.T, alpha=-2).addcmul_(excess, excess, value=x.shape[1])
        best = squares.unflatten(1, (-1, moves)).min(2)
        columns = torch.arange(start, start + best.values.shape[1]).expand(len(x), -1)
        found, (index, move) = _merged((found, best.values), [(index, columns), (move, best.indices)], keep)
    exact, offset = _recheck(inner.double(), reference, index, move, (height, width), brightness)
    order = exact.argsort(dim=1, stable=True)
    index, move, offset, exact = (values.gather(1, order) for values in (index, move, offset, exact))
    side, first = 2 * shift + 1, move[:, 0]
    return Moved(
        distance=exact[:, :2].sqrt(),
        index=index[:, :2],
        flipped=first >= side**2,
        shift=torch.stack([first % side**2 // side, first % side], 1) - shift,
        brightness=offset[:, 0],
    )


def _check(query: Tensor, reference: Tensor, k: int) -> None:
    if query.shape[1:] != reference.shape[1:]:
        raise ValueError(f"expected pictures of one shape, got {[*query.shape]} and {[*reference.shape]}")
    if len(reference) < k:
        raise ValueError(f"expected at least {k} pictures to search, got {len(reference)}")


def _start(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.empty(n, 0, dtype=dtype), torch.empty(n, 0, dtype=torch.int64)


def _merged(
    distances: tuple[Tensor, Tensor], others: list[tuple[Tensor, Tensor]], keep: int
) -> tuple[Tensor, list[Tensor]]:
    """Join old and new columns and keep those of the smallest distances, ascending, with what belongs to them."""
    both = torch.cat(distances, 1)
    best = both.topk(min(keep, both.shape[1]), largest=False)
    return best.values, [torch.cat(pair, 1).gather(1, best.indices) for pair in others]


def _windows(pictures: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all windows of m pictures, of each one as it is and then of its mirror image.

    Returns:
        windows `[m * moves, C * height * width]`, less the mean of their picture, which keeps sums of squares exact;
        their means, and the sums of squares around them, both `[m * moves]`.
    """
    means = pictures.mean((1, 2, 3))
    centered = pictures - means[:, None, None, None]
    both = torch.stack([centered, centered.flip(3)], 1).flatten(0, 1)
    rows = both.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    mean, square = (
        avg_pool2d(avg_pool2d(values.mean(1, keepdim=True), (height, 1), stride=1), (1, width), stride=1).flatten(1)
        for values in (both, both.square())
    )
    variance = square - mean.square()
    return rows, (mean + means.repeat_interleave(2)[:, None]).flatten(), rows.shape[1] * variance.flatten()


def _recheck(
    inner: Tensor, reference: Tensor, index: Tensor, move: Tensor, size: tuple[int, int], limit: float
) -> tuple[Tensor, Tensor]:
    """Return squared distances, float64 `[N, k]`, and the change of brightness that each takes."""
    (height, width), full_width = size, reference.shape[3]
    down, right = (full - part + 1 for full, part in zip(reference.shape[2:], size, strict=True))
    row = (move % (down * right) // right)[:, :, None] + torch.arange(height)
    column = (move % right)[:, :, None] + torch.arange(width)
    column = torch.where((move >= down * right)[:, :, None], full_width - 1 - column, column)
    channel = torch.arange(reference.shape[1])[:, None, None]
    squares, offset = (torch.empty(index.shape, dtype=torch.float64) for _ in range(2))
    for part in torch.arange(len(inner)).split(128):
        y = reference[
            index[part][:, :, None, None, None], channel, row[part][:, :, None, :, None], column[part][:, :, None, None]
        ]
        difference = y.flatten(2).double() - inner[part, None]
        offset[part] = difference.mean(2).clamp(-limit, limit)
        squares[part] = (difference - offset[part, :, None]).square().sum(2)
    return squares, offset
