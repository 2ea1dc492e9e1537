"""The empirical optimum: the denoiser that no network can beat on its training set, in closed form.

On pictures x_1, ..., x_n and z = x0 + sigma eps, the minimizer of E ||x0 - D(z, sigma)||^2 is the posterior mean

    D*(z, sigma) = sum_i w_i x_i,   w = softmax_i(-||z - x_i||^2 / (2 sigma^2)),

for every weight and for every target (eps, v, score), because those are linear in x0. It is the object of Yi, Sun and
Li, "On the Generalization of Diffusion Model" (arXiv 2305.14712): sampling with it returns training pictures. That
holds for DDIM as for DDPM: the last step returns a weighted mean, whose weights are one-hot once sigma^2 is far below
the gap between the squared distances to the two nearest pictures. L*(sigma) = E ||x0 - D*||^2 is the floor of a
denoising loss. With flips, the set is the pictures and their mirror images; with labels, the sum is over a class.

How the sum is computed: with pictures and z centered, <z, x> - ||x||^2 / 2 is a matrix product, chunk by chunk, and the
softmax is carried along (running maximum, normalizer, weighted sum). In float32 such a logit errs by up to

    sqrt(D) 2^-24 (||z|| ||x|| + ||x||^2 / 2) / sigma^2

(rounding of a sum of D products as a random walk: Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019), which is more
than 1 at the smallest levels, where it would decide between near-duplicates. So the logits of the 64 pictures with the
largest ones are computed again in float64, from the differences z - x. What the others weigh is then either below 1e-9
by that bound; or known well enough, by how far the 64 were off; or the query is repeated in float64 throughout, as
small sets are in any case.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pygan.data.store import Store
from pygan.diffusion.picture_set import CHUNK_VALUES, PictureSet, check_labels
from pygan.diffusion.schedule import checked_sigma
from pygan.draws import Draws

_TOP = 64
_EXACT_VALUES = 1 << 23
_QUERIES = 256
_CENTER_FROM = 1024
_NEGLIGIBLE = math.log(1e-9)
_DOUBT = 1e-3
"""Largest product of the others' share and the error of their logits, as seen on the 64: D errs by some 1e-6 then."""


@dataclass(frozen=True)
class Posterior:
    """What is known of x0 when z = x0 + sigma eps is seen and x0 is a picture of the set; N queries.

    Of sets that are not small, weights and count are known to about 1e-3 of themselves.
    """

    mean: Tensor
    """D*(z, sigma), float64 in z's shape."""
    max_weight: Tensor
    """Largest weight, float64 `[N]`; 1: the optimum returns one training picture."""
    effective_count: Tensor
    """exp of the weights' entropy, float64 `[N]`: pictures that the mean is of."""
    log_density: Tensor
    """log of (1/n) sum_i N(z; x_i, sigma^2 I), float64 `[N]`, nats."""


class EmpiricalOptimum:
    """The optimal denoiser of a training set.

    Args:
        images: uint8 `[n, C, H, W]`, a `Store` of such pictures, read in chunks, or floating-point `[n, ...]`.
        labels: int `[n]`; then every query needs a label. None: one class.
        flips: count every picture `[C, H, W]` also mirrored left to right.
        chunk_values: numbers of the set expanded at a time.
        exact_values: sets of at most so many numbers are held in memory and computed in float64 throughout.

    Raises:
        ValueError: the set is empty, or labels do not fit, or what is to be flipped are no pictures.
    """

    def __init__(
        self,
        images: Tensor | np.ndarray | Store,
        labels: ArrayLike | Tensor | None = None,
        *,
        flips: bool = False,
        chunk_values: int = CHUNK_VALUES,
        exact_values: int = _EXACT_VALUES,
    ) -> None:
        self._set = PictureSet(images, chunk_values)
        self.shape = self._set.shape
        if flips and len(self.shape) != 3:
            raise ValueError(f"got points of shape {list(self.shape)} to flip, expected pictures [C, H, W]")
        self._views = 2 if flips else 1
        self._members = None if labels is None else _by_class(check_labels(labels, len(self._set)))
        self._center = self._some_center()
        small = len(self._set) * self._set.dim <= exact_values
        self._resident = self._set.read(torch.arange(len(self._set)), center=self._center) if small else None
        self._half_norms = torch.cat([rows.square().sum(1) / 2 for _, rows in self._chunks(None, torch.float64)])
        self._radius = float((2 * self._half_norms.max()).sqrt())

    def __len__(self) -> int:
        """Pictures in the set, mirror images included."""
        return self._views * len(self._set)

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Return D*(z, sigma) in z's shape and dtype.

        Args:
            z: `[N, C, H, W]`, or as the set's points are.
            sigma: above 0; a number or `[N]`.
            labels: int `[N]`, where the set has labels.

        Raises:
            ValueError: sigma is not above 0, z has another shape than the set, or labels are missing or unknown.
        """
        return self.posterior(z, sigma, labels).mean.to(z)

    def posterior(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Posterior:
        """Return the posterior mean with its weights' statistics; see `denoise`."""
        if tuple(z.shape[1:]) != self.shape:
            raise ValueError(f"got z of shape {list(z.shape)}, expected [N, {', '.join(map(str, self.shape))}]")
        sigma = checked_sigma(sigma).to(self._set.device)
        if sigma.dim() and len(sigma) != len(z):
            raise ValueError(f"got {len(sigma)} noise levels for {len(z)} pictures")
        rows, levels = z.detach().to(self._set.device, torch.float64).flatten(1), sigma.expand(len(z))
        found = torch.empty(len(z), self._set.dim + 3, dtype=torch.float64, device=self._set.device)
        for members, queries in self._groups(labels, len(z)):
            for part in queries.split(_QUERIES) if len(queries) else ():
                found[part] = self._statistics(rows[part] - self._center, levels[part], members)
        found = found.to(z.device)
        mean = (found[:, 3:] + self._center.to(z.device)).view(z.shape)
        return Posterior(mean, found[:, 0], found[:, 1], found[:, 2])

    def optimal_loss(self, sigmas: ArrayLike | Tensor, *, samples: int = 256, seed: int = 0) -> Tensor:
        """Return L*(sigma), the mean square of x0 - D*(x0 + sigma eps) per value, for every sigma, float64 `[S]`.

        Pictures and noise are drawn once for all levels. A reference that lacks the generating picture would be biased
        upwards and a part of the set that contains it downwards, so the sum is over the whole set.
        """
        if self._members is not None:
            raise ValueError("got a set with labels, expected one without: its loss is that of the classes together")
        draws = Draws(seed, "diffusion/optimal_loss", torch.arange(samples))
        index = (draws.uniform().double() * len(self._set)).long().to(self._set.device)
        x0 = self._set.read(index).view(samples, *self.shape)
        if self._views == 2:
            x0 = torch.where(draws.uniform(1, 1, 1).to(x0) < 0.5, x0.flip(-1), x0)
        eps = draws.normal(*self.shape).to(x0)
        errors = [x0 - self.denoise(x0 + sigma * eps, sigma) for sigma in torch.as_tensor(sigmas).double()]
        return torch.stack([error.square().mean() for error in errors])

    def _some_center(self) -> Tensor:
        """Return about the mean `[D]`: it only keeps numbers small, so a part of a large set will do."""
        n = len(self._set)
        index = torch.linspace(0, n - 1, min(n, _CENTER_FROM), dtype=torch.float64).round().long()
        total = sum(rows.sum(0) for _, rows in self._set.chunks(index.to(self._set.device)))
        mean = total / len(index)
        return (mean + self._mirrored(mean[None])[0]) / 2 if self._views == 2 else mean

    def _mirrored(self, rows: Tensor) -> Tensor:
        """Flip flat pictures `[k, D]` left to right."""
        return rows.view(-1, *self.shape).flip(-1).flatten(1)

    def _groups(self, labels: Tensor | None, n: int) -> list[tuple[Tensor | None, Tensor]]:
        """Return for each class (its pictures; the queries about it), or all of both."""
        if self._members is None:
            if labels is not None:
                raise ValueError("got labels for a set that was given without, expected None")
            return [(None, torch.arange(n, device=self._set.device))]
        if labels is None:
            raise ValueError(f"got no labels, expected {n}: the set has {len(self._members)} classes")
        labels = check_labels(labels, n)
        wanted = labels.unique().tolist()
        if unknown := [label for label in wanted if label not in self._members]:
            raise ValueError(f"got the label {unknown[0]}, of which the set has no picture")
        return [(self._members[c], (labels == c).nonzero()[:, 0].to(self._set.device)) for c in wanted]

    def _chunks(self, members: Tensor | None, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (index, centered pictures)."""
        if self._resident is not None:
            index = torch.arange(len(self._set), device=self._set.device) if members is None else members
            yield index, self._resident if members is None else self._resident[index]
            return
        yield from self._set.chunks(members, dtype, self._center)

    def _statistics(self, z: Tensor, sigma: Tensor, members: Tensor | None) -> Tensor:
        """Return max weight, effective count, log density and centered mean for centered z `[B, D]`: `[B, 3 + D]`."""
        count = self._views * (len(self._set) if members is None else len(members))
        if self._resident is not None:
            sums = _Sums(z, sigma, torch.float64)
            self._stream(sums, members)
        else:
            sums = _Sums(z, sigma, torch.float32, min(_TOP, count))
            self._stream(sums, members)
            if len(doubtful := self._settle(sums, count)):
                again = _Sums(z[doubtful], sigma[doubtful], torch.float64)
                self._stream(again, members)
                sums.replace(doubtful, again)
        return sums.statistics(count)

    def _stream(self, sums: "_Sums", members: Tensor | None) -> None:
        """Add all pictures, or those of a class, to the sums."""
        z = sums.z.to(sums.dtype)
        queries = torch.cat([z, self._mirrored(z)]) if self._views == 2 else z
        half_norms = self._half_norms.to(sums.dtype)
        for index, x in self._chunks(members, sums.dtype):
            # <z, mirrored x> = <mirrored z, x>: mirror images cost a product, not memory
            products = torch.addmm(half_norms[index], queries, x.T, beta=-1)
            weights = sums.add_weights(products.view(self._views, len(z), -1), index, len(self._set))
            means = (weights.view(len(queries), -1) @ x).double()
            sums.mean += means[: len(z)]
            if self._views == 2:
                sums.mean += self._mirrored(means[len(z) :])

    def _settle(self, sums: "_Sums", count: int) -> Tensor:
        """Put exact logits of the largest into the sums; return the queries (int64) whose others are in doubt."""
        n, doubtful = len(self._set), []
        error = 2**-24 * math.sqrt(self._set.dim) * (sums.z.norm(dim=1) + self._radius / 2) * self._radius
        bounds = (error / sums.sigma.square()).tolist()
        for query, (bound, top) in enumerate(zip(bounds, sums.top_index, strict=True)):
            x = self._set.read(top % n, center=self._center)
            x = torch.where((top >= n)[:, None], self._mirrored(x), x) if self._views == 2 else x
            exact = sums.exact_logits(query, x)
            # an upper bound of the others' logarithmic share
            others = math.log(max(count - len(top), 1e-300)) + float(sums.top_logit[query, -1] - exact.max()) + bound
            if others < _NEGLIGIBLE:
                sums.set_alone(query, exact, x)
            elif float((exact - sums.top_logit[query]).abs().max()) * math.exp(min(others, 0.0)) <= _DOUBT:
                sums.exchange(query, exact, x)
            else:
                doubtful.append(query)
        return torch.tensor(doubtful, dtype=torch.int64, device=sums.z.device)


class _Sums:
    """A softmax over pictures that are seen chunk by chunk, of B queries.

    Logits are (<z, x> - ||x||^2 / 2) / sigma^2: with ||z||^2 they would lose digits in float32.

    Args:
        z: centered queries, float64 `[B, D]`.
        sigma: float64 `[B]`.
        dtype: of the products.
        top: how many of the largest logits to keep.
    """

    def __init__(self, z: Tensor, sigma: Tensor, dtype: torch.dtype, top: int = 0) -> None:
        self.z, self.sigma, self.dtype = z, sigma, dtype
        self._scale = (1 / sigma.square())[:, None]
        self._shift = z.square().sum(1) / (2 * sigma.square())
        self.peak = z.new_full((len(z),), torch.finfo(torch.float64).min)
        """Largest logit so far, m."""
        self.total = z.new_zeros(len(z))
        """sum of exp(l - m)."""
        self.heat = z.new_zeros(len(z))
        """sum of exp(l - m) (l - m)."""
        self.mean = torch.zeros_like(z)
        """sum of exp(l - m) x."""
        self.top_logit = z.new_full((len(z), top), -math.inf)
        self.top_index = torch.zeros(len(z), top, dtype=torch.int64, device=z.device)

    def add_weights(self, products: Tensor, index: Tensor, n: int) -> Tensor:
        """Add a chunk by its <z, x> - ||x||^2 / 2 `[views, B, k]`; return the weights, for the sum of the pictures."""
        logits = products * self._scale.to(products)
        if self.top_index.shape[1]:
            self._keep_largest(logits, index, n)
        peak = torch.maximum(self.peak, logits.amax((0, 2)).double())
        self._rescale(peak)
        logits -= peak[:, None].to(logits)
        weights = logits.exp()
        self.total += weights.sum((0, 2), dtype=torch.float64)
        self.heat += (weights * logits).sum((0, 2), dtype=torch.float64)
        return weights

    def _keep_largest(self, logits: Tensor, index: Tensor, n: int) -> None:
        views = torch.arange(len(logits), device=index.device)[:, None] * n
        flat = torch.cat([self.top_logit, logits.transpose(0, 1).flatten(1).double()], 1)
        names = torch.cat([self.top_index, (views + index).flatten().expand(len(flat), -1)], 1)
        self.top_logit, order = flat.topk(self.top_index.shape[1], dim=1)
        self.top_index = names.gather(1, order)

    def _rescale(self, peak: Tensor, queries: slice = slice(None)) -> None:
        """Let the sums of some queries be relative to other peaks `[k]`."""
        change = self.peak[queries] - peak
        factor = change.exp()
        self.heat[queries] = factor * (self.heat[queries] + change * self.total[queries])
        self.total[queries] *= factor
        self.mean[queries] *= factor[:, None]
        self.peak[queries] = peak

    def exact_logits(self, query: int, x: Tensor) -> Tensor:
        """Return a query's logits of pictures `[k, D]` from their differences."""
        return self._shift[query] - (self.z[query] - x).square().sum(1) / (2 * self.sigma[query].square())

    def set_alone(self, query: int, exact: Tensor, x: Tensor) -> None:
        """Let a query's sums be those of the pictures `x` `[k, D]` with logits `exact` `[k]`."""
        for sums in (self.total, self.heat, self.mean):
            sums[query] = 0
        self.peak[query] = exact.max()
        self._put(query, exact, x, exact.new_zeros(len(exact)))

    def exchange(self, query: int, exact: Tensor, x: Tensor) -> None:
        """Put `exact` in the place of the kept logits of the pictures `x`."""
        self._rescale(exact.max()[None], slice(query, query + 1))
        old = self.top_logit[query] - self.peak[query]
        self.heat[query] -= (old.exp() * old).sum()
        self._put(query, exact, x, old.exp())

    def _put(self, query: int, exact: Tensor, x: Tensor, old: Tensor) -> None:
        logits = exact - self.peak[query]
        weights = logits.exp()
        self.total[query] += (weights - old).sum()
        self.heat[query] += (weights * logits).sum()
        self.mean[query] += (weights - old) @ x

    def replace(self, queries: Tensor, other: "_Sums") -> None:
        """Take over another one's sums for some queries."""
        for name in ("peak", "total", "heat", "mean"):
            getattr(self, name)[queries] = getattr(other, name)

    def statistics(self, count: int) -> Tensor:
        """Return max weight, effective count, log density and mean, `[B, 3 + D]`, of a sum over `count` pictures."""
        dim = self.z.shape[1]
        log_total = self.total.log()
        log_density = (
            self.peak - self._shift + log_total - math.log(count) - dim * (self.sigma.log() + math.log(2 * math.pi) / 2)
        )
        facts = torch.stack([1 / self.total, (log_total - self.heat / self.total).exp(), log_density], 1)
        return torch.cat([facts, self.mean / self.total[:, None]], 1)


def _by_class(labels: Tensor) -> dict[int, Tensor]:
    return {c: (labels == c).nonzero()[:, 0] for c in labels.unique().tolist()}
