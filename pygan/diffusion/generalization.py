"""How much a generative model owes its training pictures: the measures that involve a sigma or a denoiser.

After "On the Generalization of Diffusion Model" (Yi, Sun and Li, arXiv 2305.14712), which defines generalization by the
mutual information I(z; S) of a generated picture z and the training set S: the lower, the better. I(z; S) itself cannot
be estimated in hundreds of dimensions, so these are proxies, each with the same number for real pictures that nobody
trained on:

- `information`: J(q) = mean over z ~ q of log p_h(z | S) - log p_h(z | S'), with kernel density estimates p_h on S and
  on a disjoint real set S', in principal components; reported is J(generated) - J(held out).
- `two_model_test`: two models of disjoint training sets, sampled from the same noise, agree where they generalize
  (Kadkhodaie et al., ICLR 2024, arXiv 2310.02557).
- `profile`: per sigma, the distance from the empirical optimum D*, the gap between held-out and training pictures, how
  well the error tells members from others, the excess over the least possible error L*(sigma) = E|x0 - D*|^2, and how
  many training pictures D* mixes.
- `reverse_path`: the distance from D* where the sampler goes, which noised training pictures do not show (Niedoba et
  al., arXiv 2411.19339, compare on the latter).

Measures of samples alone (nearest neighbors and what follows) are in `pygan.metrics.memorization`.

Differs from the official code in: none was released; the paper gives no estimator of I(z; S), the proxies are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pygan.diffusion.denoiser import Denoiser
from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.draws import Draws

_BANDWIDTHS = torch.logspace(-1.5, 1.0, 41, dtype=torch.float64)
"""Candidate kernel widths in units of the median distance of a calibration picture to its nearest real one."""


# Information


@dataclass(frozen=True)
class PrincipalComponents:
    """The leading principal components of a set, float64."""

    mean: Tensor
    """`[P]`"""
    directions: Tensor
    """Orthonormal, `[P, K]`."""

    @classmethod
    def fit(cls, x: Tensor, components: int) -> "PrincipalComponents":
        """Fit to `x` `[N, ...]`.

        Raises:
            ValueError: fewer than `components + 1` rows, or fewer values in a row than `components`.
        """
        rows = x.flatten(1).double()
        if len(rows) <= components or rows.shape[1] < components:
            raise ValueError(
                f"components: got {components} for {len(rows)} pictures of {rows.shape[1]} values, expected fewer than "
                "pictures and no more than values"
            )
        mean = rows.mean(0)
        centered = rows - mean
        if len(rows) >= rows.shape[1]:
            return cls(mean, torch.linalg.eigh(centered.T @ centered)[1][:, -components:])
        turned = centered.T @ torch.linalg.eigh(centered @ centered.T)[1][:, -components:]
        return cls(mean, torch.nn.functional.normalize(turned, dim=0))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the coordinates of `x` `[N, ...]`, float64 `[N, K]`."""
        rows = x.flatten(1).double()
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"got pictures of {rows.shape[1]} values, expected {len(self.mean)}")
        return (rows - self.mean) @ self.directions


def kde_log_density(x: Tensor, centers: Tensor, bandwidth: float) -> Tensor:
    """Return log (1/n) sum_i N(x; center_i, h^2 I), nats.

    Args:
        x: float64 `[N, K]`.
        centers: float64 `[n, K]`.
        bandwidth: h, in the unit of `x`.

    Returns:
        float64 `[N]`.

    Raises:
        ValueError: no center, another number of columns, or a bandwidth that is not positive.
    """
    if not len(centers) or x.shape[1:] != centers.shape[1:]:
        raise ValueError(f"expected points [N, K] and at least one center [n, K], got {[*x.shape]}, {[*centers.shape]}")
    _positive("bandwidth", bandwidth)
    squares = _squared_distances(x, centers)
    return _log_density(squares, bandwidth, x.shape[1])


def choose_bandwidth(calibration: Tensor, *sets: Tensor) -> float:
    """Return the kernel width under which the `calibration` pictures are likeliest, summed over the `sets`.

    Args:
        calibration: float64 `[N, K]`, in none of the sets.
        sets: float64 `[n, K]` each.
    """
    squares = [_squared_distances(calibration, centers) for centers in sets]
    unit = float(torch.stack([d.min(1).values for d in squares]).median().sqrt())
    _positive("bandwidth", unit)
    dimensions = calibration.shape[1]
    totals = [sum(float(_log_density(d, unit * h, dimensions).mean()) for d in squares) for h in _BANDWIDTHS.tolist()]
    return unit * float(_BANDWIDTHS[totals.index(max(totals))])


@dataclass(frozen=True, kw_only=True)
class RealPictures:
    """Four sets of real pictures `[N, ...]` of one distribution, no picture in two of them."""

    train: Tensor
    """S: what the model was trained on."""
    other: Tensor
    """S': as many others."""
    calibration: Tensor
    """Decides about components and kernel width."""
    held_out: Tensor
    """What the model would make if it owed S nothing."""

    def __post_init__(self) -> None:
        sets = (self.train, self.other, self.calibration, self.held_out)
        for name, x in zip(("train", "other", "calibration", "held_out"), sets, strict=True):
            if not len(x):
                raise ValueError(f"{name}: got no pictures, expected at least one")
            if x.shape[1:] != self.train.shape[1:]:
                raise ValueError(f"{name}: got pictures {[*x.shape[1:]]}, expected {[*self.train.shape[1:]]}")


def information(generated: Tensor, real: RealPictures, components: int = 32) -> dict[str, float]:
    """Return the log-ratio proxy of I(z; S), nats: near 0 for pictures that owe S no more than held-out ones do.

    Args:
        generated: `[M, ...]` as the real pictures are.
        real: what they are compared with.
        components: principal components of the calibration pictures in which distances are taken.

    Returns:
        `proxy` = J(generated) - J(held out) with its `standard_error`, both J, and the `bandwidth`.
    """
    _like(generated, real.train)
    features = PrincipalComponents.fit(real.calibration, components)
    train, other = features(real.train), features(real.other)
    bandwidth = choose_bandwidth(features(real.calibration), train, other)

    def ratio(x: Tensor) -> Tensor:
        z = features(x)
        return kde_log_density(z, train, bandwidth) - kde_log_density(z, other, bandwidth)

    ours, theirs = ratio(generated), ratio(real.held_out)
    return {
        "proxy": float(ours.mean() - theirs.mean()),
        "standard_error": math.hypot(_standard_error(ours), _standard_error(theirs)),
        "generated": float(ours.mean()),
        "held_out": float(theirs.mean()),
        "bandwidth": bandwidth,
    }


def two_model_test(first: Tensor, second: Tensor) -> dict[str, float]:
    """Compare what two models of different training sets make of the same noise.

    Args:
        first: `[N, ...]`, picture i from noise i.
        second: the same noises, the other model.

    Returns:
        Root mean squared differences per value, averaged over pictures: `paired` of the same noise, `unpaired` of
        different noises, and their `ratio`: near 0 where the training set does not matter, near 1 where it decides and
        the sets are disjoint.

    Raises:
        ValueError: fewer than two pictures, or shapes that differ.
    """
    if len(first) < 2 or first.shape != second.shape:
        raise ValueError(f"expected two sets of at least two pictures alike, got {[*first.shape]}, {[*second.shape]}")
    paired = float(_rms(first - second).mean())
    unpaired = float(_rms(first - second.roll(1, 0)).mean())
    return {"paired": paired, "unpaired": unpaired, "ratio": paired / unpaired if unpaired else math.nan}


# Denoisers


@torch.no_grad()
def profile(
    denoiser: Denoiser,
    optimum: EmpiricalOptimum,
    *,
    train: Tensor,
    held_out: Tensor,
    sigmas: Sequence[float],
    seed: int,
    batch: int = 64,
) -> list[dict[str, Any]]:
    """Compare a denoiser with the empirical optimum of its training set, sigma by sigma.

    Args:
        denoiser: the model.
        optimum: D* of the whole training set.
        train: training pictures to be noised, float `[N, ...]` in [-1, 1]; some of them will do.
        held_out: as many others, which the model has not seen.
        sigmas: noise levels.
        seed: of the noise.
        batch: pictures at a time.

    Returns:
        For each sigma, errors being mean squares per value:

        - `train_error`, `held_out_error`: of the model's estimate of x0; `gap` = held out - train, with its
          `gap_standard_error`; `membership`: probability that a training picture has the smaller error (0.5: chance)
        - `least_error`: L*(sigma), the error of D* on the same noised training pictures; `excess` = train - least
        - `from_optimum`, `from_optimum_held_out`: of the model from D*
        - `max_weight` and `effective_count` = exp(entropy) of the pictures that D* mixes, averaged over noised training
          pictures
    """
    if not len(train) or not len(held_out):
        raise ValueError(f"got {len(train)} training and {len(held_out)} held-out pictures, expected at least one each")
    _like(held_out, train)
    return [_at_sigma(denoiser, optimum, train, held_out, _positive("sigma", sigma), seed, batch) for sigma in sigmas]


def _at_sigma(
    denoiser: Denoiser,
    optimum: EmpiricalOptimum,
    train: Tensor,
    held_out: Tensor,
    sigma: float,
    seed: int,
    batch: int,
) -> dict[str, Any]:
    seen = _errors(denoiser, optimum, train, sigma, noised(train, sigma, seed, "train"), batch)
    unseen = _errors(denoiser, optimum, held_out, sigma, noised(held_out, sigma, seed, "held_out"), batch)
    means = {name: float(values.mean()) for name, values in seen.items()}
    return {
        "sigma": sigma,
        "train_error": means["error"],
        "held_out_error": float(unseen["error"].mean()),
        "gap": float(unseen["error"].mean()) - means["error"],
        "gap_standard_error": math.hypot(_standard_error(seen["error"]), _standard_error(unseen["error"])),
        "membership": membership(seen["error"], unseen["error"]),
        "least_error": means["least_error"],
        "excess": means["error"] - means["least_error"],
        "from_optimum": means["from_optimum"],
        "from_optimum_held_out": float(unseen["from_optimum"].mean()),
        "max_weight": means["max_weight"],
        "effective_count": means["effective_count"],
    }


def _errors(
    denoiser: Denoiser, optimum: EmpiricalOptimum, pictures: Tensor, sigma: float, z: Tensor, batch: int
) -> dict[str, Tensor]:
    """Return name -> float64 `[N]`, one value per picture."""
    parts = []
    for x0, noisy in zip(pictures.split(batch), z.split(batch), strict=True):
        best = optimum.posterior(noisy, sigma)
        estimate = best.mean if denoiser is optimum else denoiser.denoise(noisy, sigma)
        parts.append(
            {
                "error": _mean_squares(estimate - x0),
                "least_error": _mean_squares(best.mean - x0),
                "from_optimum": _mean_squares(estimate - best.mean),
                "max_weight": best.max_weight,
                "effective_count": best.effective_count,
            }
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def noised(pictures: Tensor, sigma: float, seed: int, stream: str) -> Tensor:
    """Return z = x0 + sigma * eps; the noise of picture i depends on (seed, stream, sigma, i) alone."""
    draws = Draws(seed, f"diffusion/{stream}/{sigma:g}", torch.arange(len(pictures)))
    return pictures + sigma * draws.normal(*pictures.shape[1:]).to(pictures)


def membership(train_errors: Tensor, held_out_errors: Tensor) -> float:
    """Return the probability that a training picture has a smaller error than a held-out one (Mann-Whitney), ties half.

    Raises:
        ValueError: one of the sets is empty.
    """
    if not len(train_errors) or not len(held_out_errors):
        raise ValueError(f"got {len(train_errors)} and {len(held_out_errors)} errors, expected at least one each")
    difference = held_out_errors[None] - train_errors[:, None]
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())


class Beside:
    """A denoiser that notes, at every point where it is asked, how far it is from another one."""

    def __init__(self, denoiser: Denoiser, other: Denoiser) -> None:
        self.denoiser, self.other = denoiser, other
        self.distances: dict[float, list[Tensor]] = {}
        """sigma -> mean squares per value, `[N]` of each call."""

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        estimate = self.denoiser.denoise(z, sigma, labels)
        level = float(torch.as_tensor(sigma).flatten()[0])
        self.distances.setdefault(level, []).append(_mean_squares(estimate - self.other.denoise(z, sigma, labels)))
        return estimate


@torch.no_grad()
def reverse_path(
    sampler: Callable[[Denoiser], Tensor], denoiser: Denoiser, optimum: Denoiser
) -> tuple[Tensor, list[dict[str, float]]]:
    """Sample, and compare the denoiser with the optimum wherever the sampler asks.

    Args:
        sampler: returns samples of a denoiser; at a call all pictures have one sigma.
        denoiser: the model, whose path it is.
        optimum: D* of its training set.

    Returns:
        The samples, and by falling sigma `from_optimum`, the mean squared difference per value.
    """
    beside = Beside(denoiser, optimum)
    samples = sampler(beside)
    path = [
        {"sigma": sigma, "from_optimum": float(torch.cat(found).mean())} for sigma, found in beside.distances.items()
    ]
    return samples, sorted(path, key=lambda point: -point["sigma"])


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Return `[N, n]`; exact for identical rows, which the matrix product is not."""
    return torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist").square()


def _log_density(squares: Tensor, bandwidth: float, dimensions: int) -> Tensor:
    constant = math.log(squares.shape[1]) + dimensions / 2 * math.log(2 * math.pi * bandwidth**2)
    return (-squares / (2 * bandwidth**2)).logsumexp(1) - constant


def _mean_squares(difference: Tensor) -> Tensor:
    return difference.flatten(1).double().square().mean(1)


def _rms(difference: Tensor) -> Tensor:
    return _mean_squares(difference).sqrt()


def _standard_error(values: Tensor) -> float:
    """Of the mean; infinite for one value."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: got {value}, expected a positive number")
    return value


def _like(pictures: Tensor, others: Tensor) -> None:
    if pictures.shape[1:] != others.shape[1:]:
        raise ValueError(f"got pictures {[*pictures.shape[1:]]}, expected {[*others.shape[1:]]} as in the training set")
    if not len(pictures):
        raise ValueError("got no pictures, expected at least one")
