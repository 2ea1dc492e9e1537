"""What Reg-DGM promises, where it can be computed: Zhong et al., ICLR 2023 (arXiv 2208.14133).

Three studies of min D(p_d || p_g) + lambda E_{x ~ p_g} f(x), from the closed form to real pictures:

- `gaussian_study`: N(mu, sigma^2) fitted to m samples, f = -log of a pretrained N(mu0, sigma^2). The estimate is
  (mean + lambda mu0) / (1 + lambda); its error trades variance a = sigma^2 / m for bias b = (mu* - mu0)^2: `Tradeoff`.
- `finite_study`: distributions over K atoms. KL(p_d || p_g) is minimized by p_d / (alpha + lambda f), the value of the
  GAN game, 2 JSD, by p_d / (exp(alpha + lambda f) - 1), where alpha makes the sum 1: `minimizer`. A descent on logits
  has to find the same; then a histogram of n samples takes the place of p_d.
- `image_study`: principal components of real pictures. A Gaussian with known covariance is fitted to n pictures of one
  class and pulled towards the mean of the other classes. Draws are with replacement, so that the class's training
  pictures are the whole population and the first study holds exactly, in as many dimensions as there are components;
  the pictures of the held-out split tell how much of it carries over to other places.

Every number here is a property of a formula or a likelihood; no generator is trained.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.draws import Draws
from pygan.errors import DataError
from pygan.spec import spec

Divergence = Literal["kl", "jsd"]
DIVERGENCES: tuple[Divergence, ...] = ("kl", "jsd")
_BISECTIONS = 50


@spec
class GaussianSpec:
    """Fitting the mean of a Gaussian whose deviation is known."""

    sigma: float = Field(default=1.0, gt=0)
    """Deviation of the data."""
    samples: tuple[int, ...] = (3, 10, 30, 100, 300)
    """Training samples m."""
    offsets: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Distances |mu* - mu0| of the pretrained mean from the true one."""
    trials: int = Field(default=20_000, ge=2)
    """Training sets drawn for the Monte Carlo estimates."""


@spec
class FiniteSpec:
    """Distributions over a few atoms."""

    atoms: int = Field(default=20, ge=2)
    """Size of the space."""
    agreement: float = Field(default=0.8, ge=0, le=1)
    """Correlation of the pretrained distribution's log-probabilities with those of the data."""
    smoothing: float = Field(default=0.5, gt=0)
    """Added to every count of a histogram, so that no atom has probability 0."""
    samples: tuple[int, ...] = (10, 30, 100, 300, 1000)
    """Training samples n."""
    trials: int = Field(default=200, ge=2)
    """Histograms per n."""
    shown: tuple[float, ...] = (0.1, 1.0, 5.0)
    """Weights for which the minimizers themselves are recorded."""


@spec
class ImageSpec:
    """Exact likelihoods of the principal components of real pictures."""

    dataset: str
    """Key of `datasets`; its classes are the populations."""
    components: int = Field(default=32, ge=1)
    """Principal components kept."""
    samples: tuple[int, ...] = (5, 10, 30, 100, 300, 1000)
    """Training pictures n, drawn with replacement."""
    trials: int = Field(default=300, ge=2)
    """Training sets per class and n."""


@spec
class TheorySpec:
    """The theory of Reg-DGM as a study; null leaves a part out."""

    seed: int = Field(default=0, ge=0)
    """Of all draws."""
    decades: tuple[int, int] = (-3, 2)
    """Powers of ten between which the weights lie."""
    per_decade: int = Field(default=8, ge=1)
    """Weights in a decade."""
    gaussian: GaussianSpec | None = Field(default={}, validate_default=True)
    """Fitting a Gaussian."""
    finite: FiniteSpec | None = Field(default={}, validate_default=True)
    """Minimizers on a finite space."""
    images: ImageSpec | None = None
    """Likelihoods of real pictures; null: no data are needed."""

    def weights(self) -> Tensor:
        """Return the weights lambda, float64, in equal ratios."""
        low, high = self.decades
        return torch.logspace(low, high, (high - low) * self.per_decade + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Tradeoff:
    """The mean squared error of (estimate + lambda prior) / (1 + lambda).

    In d dimensions with known covariance, errors are measured in its Mahalanobis distance.
    """

    variance: float
    """Mean squared error of the unbiased estimate (the paper's maximum likelihood), sigma^2 / m per dimension."""
    bias: float
    """Squared distance of the prior from the truth."""

    def error(self, weight: Tensor) -> Tensor:
        """Return the mean squared error at every weight lambda >= 0."""
        return (self.variance + weight.square() * self.bias) / (1 + weight).square()

    @property
    def optimum(self) -> float:
        """The best weight, a / b; infinite where the prior is the truth."""
        return self.variance / self.bias if self.bias else math.inf

    @property
    def least(self) -> float:
        """The error at the best weight, ab / (a + b): below both a and b."""
        return self.variance * self.bias / (self.variance + self.bias)

    @property
    def interval(self) -> tuple[float, float]:
        """The open interval of weights that beat both the unbiased estimate and the prior."""
        a, b = self.variance, self.bias
        bounded = b > a and not math.isclose(a, b)
        return max((a - b) / (2 * b), 0.0) if b else math.inf, 2 * a / (b - a) if bounded else math.inf


def fitted_variance(sample_variance: Tensor, pretrained_variance: float, weight: Tensor) -> Tensor:
    """Return the variance that minimizes the regularized objective where it is fitted too: below the samples' own.

    The root of (lambda / sigma0^2) v^2 + v - s^2 = 0, with s^2 the variance about the fitted mean; at weight 0, s^2.
    """
    ratio = weight * sample_variance / pretrained_variance
    return 2 * sample_variance / (1 + (1 + 4 * ratio).sqrt())


# Finite spaces


def minimizer(p: Tensor, f: Tensor, weight: Tensor, divergence: Divergence) -> tuple[Tensor, Tensor]:
    """Return the p_g that minimizes D(p, p_g) + weight E_{p_g} f, and its normalizer alpha.

    Args:
        p: float64 `[..., K]`, positive, sums 1.
        f: energies, `[K]`.
        weight: `[...]`, broadcast against the leading dimensions of `p`.
        divergence: "kl", KL(p || p_g), or "jsd", twice the Jensen-Shannon divergence.

    Returns:
        p_g `[..., K]` and alpha `[...]`, found by bisection: the sum over atoms falls with alpha, and it is at least 1
        where the atom of least energy alone takes all mass, at most 1 where all atoms have that energy.
    """
    lowest, where = f.min(0)
    rise = weight[..., None] * (f - lowest)
    low, high = p[..., where].expand(rise.shape[:-1]), torch.ones_like(rise[..., 0])
    if divergence == "jsd":
        low, high = low.log1p(), high.log1p()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        heavy = _reweighted(p, middle[..., None] + rise, divergence).sum(-1) > 1
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    alpha = (low + high) / 2
    return _reweighted(p, alpha[..., None] + rise, divergence), alpha - weight * lowest


def _reweighted(p: Tensor, t: Tensor, divergence: Divergence) -> Tensor:
    return p / (t if divergence == "kl" else torch.expm1(t))


def distance(p: Tensor, q: Tensor, divergence: Divergence) -> Tensor:
    """Return KL(p || q) or twice the Jensen-Shannon divergence, nats; sums over the last dimension."""
    if divergence == "kl":
        return (p * (p / q).log()).sum(-1)
    middle = (p + q) / 2
    return (p * (p / middle).log() + q * (q / middle).log()).sum(-1)


def descent(p: Tensor, f: Tensor, weight: float, divergence: Divergence) -> Tensor:
    """Return the p_g `[K]` that descent on its logits finds from the uniform distribution."""
    logits = torch.zeros_like(f, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        q = logits.softmax(0)
        loss = distance(p, q, divergence) + weight * (q @ f)
        loss.backward()
        return loss

    optimizer.step(objective)
    return logits.detach().softmax(0)


# Studies: plain values for a JSON file


def gaussian_study(settings: GaussianSpec, weights: Tensor, seed: int) -> dict[str, Any]:
    """Return errors and risks against the weight: the formula, and averages over training sets."""
    sigma, fits = settings.sigma, []
    constant = math.log(2 * math.pi * sigma**2) / 2
    for m in settings.samples:
        draws = Draws(seed, f"theory/gaussian{m}", torch.arange(settings.trials))
        mean = sigma * draws.normal(m).double().mean(1)  # the true mean is 0
        fresh = sigma * draws.normal().double()
        for offset in settings.offsets:
            theory = Tradeoff(sigma**2 / m, offset**2)
            estimate = (mean + weights[:, None] * offset) / (1 + weights[:, None])
            errors = estimate.square()
            risks = constant + (fresh - estimate).square() / (2 * sigma**2)
            fits.append(
                {
                    "samples": m,
                    "offset": offset,
                    "variance": theory.variance,
                    "bias": theory.bias,
                    "optimum": _finite(theory.optimum),
                    "least": theory.least,
                    "interval": [_finite(end) for end in theory.interval],
                    "error": theory.error(weights).tolist(),
                    "error_measured": errors.mean(1).tolist(),
                    "risk": (constant + 0.5 + theory.error(weights) / (2 * sigma**2)).tolist(),
                    "risk_measured": risks.mean(1).tolist(),
                    "best_measured": float(weights[errors.mean(1).argmin()]),
                }
            )
    shrunk = fitted_variance(torch.tensor(sigma**2, dtype=torch.float64), sigma**2, weights)
    return {"sigma": sigma, "trials": settings.trials, "fits": fits, "fitted_variance": shrunk.tolist()}


def finite_study(settings: FiniteSpec, weights: Tensor, seed: int) -> dict[str, Any]:
    """Return minimizers by formula and by descent, and the risk of fitting a histogram against the weight."""
    draws = Draws(seed, "theory/finite", torch.arange(settings.atoms))
    own, other = draws.normal().double(), draws.normal().double()
    p = own.softmax(0)
    f = -(settings.agreement * own + math.sqrt(1 - settings.agreement**2) * other).log_softmax(0)
    shown = torch.tensor(settings.shown, dtype=torch.float64)
    histograms = {n: _histograms(p, n, settings, seed) for n in settings.samples}
    result: dict[str, Any] = {"p": p.tolist(), "f": f.tolist(), "trials": settings.trials, "divergences": {}}
    for divergence in DIVERGENCES:
        exact, alpha = minimizer(p, f, shown, divergence)
        found = torch.stack([descent(p, f, weight, divergence) for weight in settings.shown])
        result["divergences"][divergence] = {
            "minimizers": [
                {
                    "weight": weight,
                    "alpha": float(alpha[i]),
                    "formula": exact[i].tolist(),
                    "descent": found[i].tolist(),
                    "largest_difference": float((exact[i] - found[i]).abs().max()),
                }
                for i, weight in enumerate(settings.shown)
            ],
            "fits": [
                {"samples": n, **_finite_fit(p, f, histogram, weights, divergence)}
                for n, histogram in histograms.items()
            ],
        }
    return result


def _histograms(p: Tensor, n: int, settings: FiniteSpec, seed: int) -> Tensor:
    """Return smoothed relative frequencies of n samples of `p`, `[trials, K]`."""
    uniform = Draws(seed, f"theory/histogram{n}", torch.arange(settings.trials)).uniform(n).double()
    atoms = torch.searchsorted(p.cumsum(0)[:-1].contiguous(), uniform)
    counts = torch.zeros(settings.trials, len(p), dtype=torch.float64)
    counts.scatter_add_(1, atoms, torch.ones_like(uniform))
    return (counts + settings.smoothing) / (n + settings.smoothing * len(p))


def _finite_fit(p: Tensor, f: Tensor, histogram: Tensor, weights: Tensor, divergence: Divergence) -> dict[str, Any]:
    fitted, _ = minimizer(histogram[:, None], f, weights.expand(len(histogram), -1), divergence)
    risks = distance(p, fitted, divergence)
    return {
        "risk": risks.mean(0).tolist(),
        "standard_error": (risks.std(0) / math.sqrt(len(risks))).tolist(),
        "unregularized": float(distance(p, histogram, divergence).mean()),
        "best": float(weights[risks.mean(0).argmin()]),
    }


def image_study(
    settings: ImageSpec,
    weights: Tensor,
    seed: int,
    *,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Return negative log-likelihoods per picture (nats) against the weight, for every class and number of pictures.

    Args:
        train: pictures uint8 `[N, C, H, W]` and labels int64 `[N]`; the population.
        held_out: the same of the split that judges.
        class_names: by label; a class without pictures in one of the splits is left out.

    Raises:
        DataError: there are fewer than two classes, or too few pictures for the components.
    """
    labels, held_labels = train[1], held_out[1]
    known = [c for c in range(len(class_names)) if (labels == c).any() and (held_labels == c).any()]
    if len(known) < 2 or len(labels) <= settings.components + len(class_names):
        raise DataError(
            f"theory.images: got {len(labels)} pictures of {len(known)} classes in both splits, expected two classes "
            f"and more pictures than components ({settings.components}) and classes ({len(class_names)})"
        )
    x, held, log_det = _standardized(train[0], labels, held_out[0], settings.components)
    constant = (settings.components * math.log(2 * math.pi) + log_det) / 2
    classes = []
    for c in known:
        own, truth = x[labels == c], held[held_labels == c]
        prior = x[labels != c].mean(0)
        center, spread = own.mean(0), float(own.var(0, correction=0).sum())
        bias = float((center - prior).square().sum())
        sizes = []
        for n in settings.samples:
            draws = Draws(seed, f"theory/images{c}/{n}", torch.arange(settings.trials))
            mean = torch.stack([own[chosen].mean(0) for chosen in draws.integers(len(own), n)])
            theory = Tradeoff(spread / n, bias)
            fitted = (mean + weights[:, None, None] * prior) / (1 + weights[:, None, None])
            sizes.append(
                {
                    "samples": n,
                    "optimum": _finite(theory.optimum),
                    "theory": (constant + (spread + theory.error(weights)) / 2).tolist(),
                    "unregularized": constant + (spread + spread / n) / 2,
                    **_likelihoods("population", own, fitted, mean, weights, constant),
                    **_likelihoods("held_out", truth, fitted, mean, weights, constant),
                }
            )
        classes.append(
            {
                "name": class_names[c],
                "population": len(own),
                "held_out": len(truth),
                "spread": spread,
                "bias": bias,
                "sizes": sizes,
            }
        )
    return {
        "dataset": settings.dataset,
        "components": settings.components,
        "trials": settings.trials,
        "classes": classes,
    }


def _standardized(img: Tensor, labels: Tensor, held: Tensor, components: int) -> tuple[Tensor, Tensor, float]:
    """Return principal components in which the pooled covariance within classes is the identity.

    Returns:
        Training and held-out pictures, float64 `[N, components]`, and the log-determinant of that covariance.
    """
    x, held = (pictures.flatten(1).double() / 127.5 - 1 for pictures in (img, held))
    mean = x.mean(0)
    directions = _principal_directions(x - mean, components)
    x, held = ((pictures - mean) @ directions for pictures in (x, held))
    classes = labels.unique()
    centered = torch.cat([x[labels == c] - x[labels == c].mean(0) for c in classes])
    covariance = centered.T @ centered / (len(x) - len(classes))
    factor = torch.linalg.cholesky(covariance)
    x, held = (torch.linalg.solve_triangular(factor, pictures.T, upper=False).T for pictures in (x, held))
    return x, held, float(2 * factor.diagonal().log().sum())


def _principal_directions(x: Tensor, components: int) -> Tensor:
    """Return the leading directions of the centered `x` `[N, P]`, orthonormal `[P, components]`."""
    if len(x) >= x.shape[1]:
        return torch.linalg.eigh(x.T @ x)[1][:, -components:]
    return torch.nn.functional.normalize(x.T @ torch.linalg.eigh(x @ x.T)[1][:, -components:], dim=0)


def _likelihoods(
    name: str, pictures: Tensor, fitted: Tensor, mean: Tensor, weights: Tensor, constant: float
) -> dict[str, Any]:
    """Return the mean negative log-likelihood of `pictures` at every weight, at weight 0, and the best weight."""
    center, spread = pictures.mean(0), pictures.var(0, correction=0).sum()
    curve = constant + (spread + (fitted - center).square().sum(-1).mean(1)) / 2
    alone = constant + (spread + (mean - center).square().sum(-1).mean()) / 2
    return {
        name: curve.tolist(),
        f"{name}_unregularized": float(alone),
        f"{name}_best": float(weights[curve.argmin()]),
        f"{name}_gain": float(alone - curve.min()),
    }


def _finite(value: float) -> float | None:
    """Return None for infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
