"""Memorization: does a generator repeat its training pictures? Distances between distributions do not see it.

Every share is reported as that of the generated pictures minus that of held-out real ones, measured in the same way,
because real pictures too lie near some training picture. For x with its nearest training pictures x1, x2, ...:

- `memorized`: |x - x1| < |x - x2| / 3 (Gu et al., "On Memorization in Diffusion Models", arXiv 2310.02664).
  In pixels, in the features of the judge, and `memorized_moved`: over flips, shifts and changes of brightness, which
  hide a copy from the distance of pixels.
- `extracted`: |x - x1| < threshold * alpha * mean over the n nearest of |x - xi| (Carlini et al., "Extracting Training
  Data from Diffusion Models", USENIX Security 2023, arXiv 2301.13188, section 4.2), with the fields of the spec.
- `authentic`: |x - x1| > the distance of x1 to its own nearest other training picture (Alaa et al., "How Faithful is
  your Synthetic Data?", ICML 2022, arXiv 2102.08921, section 3.3). Copies make the difference negative.
- `training_kid`: the kernel distance to the training pictures. It is unbiased for pictures that do not depend on them
  and falls below 0 for copies: `copying` is an alarm that rings where it is below the 2.5 % quantile of the same
  estimate for as many real pictures and others of one distribution, drawn from the held-out ones.
- `training_fd`: the Fréchet distance to the training pictures minus that of as many held-out real pictures, which takes
  away most of the bias of few training pictures. Below 0, generated pictures are nearer than fresh real ones.

Differs from the official code of Gu et al. in that the distance is exact (they use a float32 matrix product), and from
its report in that the snapshot is the one that was selected, not the one with the highest share.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pygan.draws import Draws, permutation
from pygan.errors import DataError
from pygan.metrics.base import Training, wilson
from pygan.metrics.frechet import frechet_distance
from pygan.metrics.kid import KernelDistance, kernel, within
from pygan.metrics.neighbors import Moved, Neighbors, nearest, nearest_moved
from pygan.spec import spec

RATIO = 1 / 3
"""Below it a picture counts as memorized."""


def nn_ratio(neighbors: Neighbors) -> Tensor:
    """Return |x - x1| / |x - x2|, float64 `[N]`; 0 where x is a training picture, even one that is there twice."""
    first, second = neighbors.distance[:, 0], neighbors.distance[:, 1]
    return torch.where(first == 0, first, first / second)


def calibrated_distance(neighbors: Neighbors, alpha: float = 0.5) -> Tensor:
    """Return |x - x1| / (alpha * mean distance to all of `neighbors`), float64 `[N]`; 0 where x is a training picture.

    Args:
        neighbors: the n nearest.
        alpha: of the paper.
    """
    first, mean = neighbors.distance[:, 0], neighbors.distance.mean(1)
    return torch.where(first == 0, first, first / (alpha * mean))


def authentic(neighbors: Neighbors, training: Tensor) -> Tensor:
    """Return whether x is farther from its nearest training picture than that one from the others, bool `[N]`.

    Args:
        neighbors: in `training`, the nearest at least.
        training: `[M, ...]`, M at least 2.
    """
    used, place = neighbors.index[:, 0].unique(return_inverse=True)
    around = nearest(training[used], training, 2)
    other = (around.index[:, 0] == used).long()  # a duplicate may come before the picture itself
    spacing = around.distance.gather(1, other[:, None])[:, 0]
    return neighbors.distance[:, 0] > spacing[place]


def difference_interval(hits: int, n: int, hits_held_out: int, n_held_out: int) -> list[float]:
    """Return the 95 % interval of a difference of two shares.

    Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 1998,
    method 10: two Wilson intervals combined.
    """
    (p, low, high), (q, low_q, high_q) = ((k / m, *wilson(k, m)) for k, m in ((hits, n), (hits_held_out, n_held_out)))
    below, above = ((p - low) ** 2 + (high_q - q) ** 2) ** 0.5, ((high - p) ** 2 + (q - low_q) ** 2) ** 0.5
    return [float(p - q - below), float(p - q + above)]


def lowest_by_chance(real: Tensor, n: int, resamples: int, seed: int) -> float:
    """Return the 2.5 % quantile of the kernel distance of `n` random rows of `real` `[N, D]` to the others.

    Both parts are of one distribution and independent; the number of rows is at most N / 2. For a training set larger
    than that the quantile is lower than its own would be, so that the alarm rings too late rather than too often.
    """
    real, n = real.double(), min(n, len(real) // 2)
    order = Draws(seed, "metrics/memorization/halves", torch.arange(resamples)).uniform(len(real)).argsort(1)
    part = torch.zeros(resamples, len(real), dtype=torch.float64).scatter_(1, order[:, :n], 1)
    rest, values = 1 - part, kernel(real, real)
    across = ((part @ values) * rest).sum(1) / (n * (len(real) - n))
    return float((within(values, part) + within(values, rest) - 2 * across).quantile(0.025))


def nearest_pairs(moved: Moved, count: int) -> list[dict[str, Any]]:
    """Return the pairs of generated and training picture with the smallest ratios, ready for JSON.

    Each has the numbers of both pictures (`generated`, `training`), the `ratio`, and what takes the generated picture
    to the training picture: `flipped`, `shift` (rows, columns) and `brightness`, as in `Moved`.
    """
    ratio = nn_ratio(moved)
    return [
        {
            "generated": i,
            "training": int(moved.index[i, 0]),
            "ratio": float(ratio[i]),
            "flipped": bool(moved.flipped[i]),
            "shift": moved.shift[i].tolist(),
            "brightness": float(moved.brightness[i]),
        }
        for i in ratio.argsort(stable=True)[:count].tolist()
    ]


def pairs_grid(generated: Tensor, training: Tensor, pairs: list[Mapping[str, Any]], columns: int = 10) -> Tensor:
    """Return pictures for a grid of `columns`: a row of generated pictures, below it their nearest training pictures.

    Args:
        generated: uint8 `[N, C, H, W]`.
        training: uint8 `[M, C, H, W]`.
        pairs: as `nearest_pairs` returns them; the last row is filled up with white.
    """
    rows = []
    for start in range(0, len(pairs), columns):
        part = pairs[start : start + columns]
        white = generated.new_full((columns - len(part), *generated.shape[1:]), 255)
        for pictures, key in ((generated, "generated"), (training, "training")):
            rows += [pictures[[pair[key] for pair in part]], white]
    return torch.cat(rows)


class Memorization:
    """Computes the shares, in features and, where the pictures are given, in pixels, and the distances to training."""

    needs = ("training",)

    def __init__(self, settings: "Spec") -> None:
        self.settings = settings
        self.kid = KernelDistance(settings.resamples, settings.seed)

    def compute(self, real: Tensor, gen: Tensor, *, training: Training) -> dict[str, dict[str, Any]]:
        """Compare the features `real` `[N, D]` (held out) and `gen` `[M, D]` with those of the training pictures.

        Raises:
            DataError: fewer than three training pictures.
        """
        if len(training.features) < 3:
            raise DataError(f"memorization: got {len(training.features)} training pictures, expected at least 3")
        held_out = permutation(self.settings.seed, "metrics/memorization", len(real))[: len(gen)]
        results = self._in_features(gen, real[held_out], training.features)
        if training.pixels is not None:
            results |= self._in_pixels(training, held_out)
        reference = {"reference_split": "train", "n_real": len(training.index), "n_held_out": len(held_out)}
        return {name: entry | {"record": reference | entry.get("record", {})} for name, entry in results.items()}

    def _in_features(self, gen: Tensor, held_out: Tensor, train: Tensor) -> dict[str, dict[str, Any]]:
        near, near_held_out = (nearest(x, train) for x in (gen, held_out))
        kid, kid_held_out = (self.kid.compute(train, x)["kid"] for x in (gen, held_out))
        alarm = lowest_by_chance(held_out, len(train), self.settings.resamples, self.settings.seed)
        n = min(len(gen), len(held_out))
        fd, fd_held_out = (frechet_distance(train.double(), x[:n].double()) for x in (gen, held_out))
        return {
            "memorized": self._memorized(near, near_held_out, "features"),
            "authentic": self._authentic(near, near_held_out, train, "features"),
            "training_kid": {
                "value": kid["value"],
                "interval": kid["interval"],
                "held_out": kid_held_out["value"],
                "alarm_below": alarm,
                "copying": kid["value"] < alarm,
                "protocol": (
                    "unbiased squared MMD to the run's training pictures, kernel (x'y/D + 1)^3, raw value; "
                    f"interval: 95 % of {self.settings.resamples} bootstrap resamples of the pictures"
                ),
            },
            "training_fd": {
                "value": fd - fd_held_out,
                "interval": None,
                "generated": fd,
                "held_out": fd_held_out,
                "protocol": f"Fréchet distance to the run's training pictures minus that of {n} held-out real ones",
            },
        }

    def _in_pixels(self, training: Training, held_out: Tensor) -> dict[str, dict[str, Any]]:
        settings, side = self.settings, min(self.settings.side, *training.pixels.shape[2:])
        train, gen, real = (
            F.interpolate(pixels.float() / 127.5 - 1, size=(side, side), mode="area")
            for pixels in (training.pixels, training.gen_pixels, training.real_pixels[held_out])
        )
        count = min(settings.neighbors, len(train))
        near, near_held_out = (nearest(x, train, count) for x in (gen, real))
        group = {"shift": min(settings.shift, side // 4), "brightness": settings.brightness}
        moved, moved_held_out = (nearest_moved(x[: settings.searched], train, **group) for x in (gen, real))
        pairs = [
            pair | {"training": int(training.index[pair["training"]])} for pair in nearest_pairs(moved, settings.pairs)
        ]
        where = f"pixels at {side}x{side}"
        what = f"{where} over flips, shifts of {group['shift']} and brightness of {settings.brightness:g}"
        results = {
            "memorized_pictures": self._memorized(near, near_held_out, where),
            "memorized_moved": self._memorized(moved, moved_held_out, what) | {"pairs": pairs},
            "extracted_pictures": self._extracted(near, near_held_out, where),
            "authentic_pictures": self._authentic(near, near_held_out, train, where),
        }
        for name, entry in results.items():
            searched = moved if name == "memorized_moved" else near
            entry["record"] = {"network": "pixels", "network_sha256": None, "resize": None}
            entry["record"] |= {"n_gen": len(searched.index), "dtype": "distances float64"}
        return results

    def _memorized(self, near: Neighbors, near_held_out: Neighbors, where: str) -> dict[str, Any]:
        hits = (nn_ratio(x) < RATIO for x in (near, near_held_out))
        return _excess(*hits, f"ratio of the two nearest training pictures below 1/3 in {where}")

    def _extracted(self, near: Neighbors, near_held_out: Neighbors, where: str) -> dict[str, Any]:
        alpha, threshold, count = self.settings.alpha, self.settings.threshold, self.settings.neighbors
        hits = (calibrated_distance(x, alpha) < threshold for x in (near, near_held_out))
        what = f"distance below {threshold:g} * {alpha:g} * mean of the {count} nearest (all where there are fewer)"
        return _excess(*hits, f"{what}, in {where}")

    def _authentic(self, near: Neighbors, near_held_out: Neighbors, train: Tensor, where: str) -> dict[str, Any]:
        hits = (authentic(x, train) for x in (near, near_held_out))
        return _excess(*hits, f"farther from the nearest training picture than that from the next, in {where}")


def _excess(generated: Tensor, held_out: Tensor, what: str) -> dict[str, Any]:
    """Return the share of generated pictures minus that of held-out ones, both bool, with its interval."""
    hits, hits_held_out = int(generated.sum()), int(held_out.sum())
    share, share_held_out = hits / len(generated), hits_held_out / len(held_out)
    return {
        "value": share - share_held_out,
        "interval": difference_interval(hits, len(generated), hits_held_out, len(held_out)),
        "generated": share,
        "held_out": share_held_out,
        "protocol": (
            f"{what}; share of {len(generated)} generated minus that of {len(held_out)} held-out real pictures; "
            "interval: 95 % over both, the training pictures given"
        ),
    }


@spec
class Spec:
    """Memorization of training pictures."""

    names: ClassVar[tuple[str, ...]] = (
        "memorized",
        "authentic",
        "training_kid",
        "training_fd",
        "memorized_pictures",
        "memorized_moved",
        "extracted_pictures",
        "authentic_pictures",
    )
    """What is computed where pictures are given."""
    selects: ClassVar[bool] = False
    kind: Literal["memorization"] = "memorization"
    side: int = Field(default=32, ge=8, le=256)
    """Pixels to which the sides of larger pictures are averaged before they are compared; the cost grows as side^2."""
    shift: int = Field(default=4, ge=0)
    """Pixels (of those) up, down and to the sides that `memorized_moved` searches, a quarter of the side at most; the
    cost grows as (2 * shift + 1)^2."""
    brightness: float = Field(default=0.5, ge=0)
    """Change of brightness that `memorized_moved` allows, on the scale of -1 to 1 (DiffAugment jitters by 0.5)."""
    searched: int = Field(default=500, ge=1)
    """Generated, and held-out, pictures at most that `memorized_moved` sees: a second a hundred training pictures."""
    neighbors: int = Field(default=50, ge=2)
    """Nearest training pictures that the distance of Carlini et al. is calibrated by; all where there are fewer."""
    alpha: float = Field(default=0.5, gt=0)
    """Factor of that calibration."""
    threshold: float = Field(default=0.5, gt=0)
    """Calibrated distance below which a picture counts as extracted."""
    pairs: int = Field(default=20, ge=1)
    """Generated pictures nearest to a training picture that are kept, for the panel in the report."""
    resamples: int = Field(default=200, ge=100)
    """Bootstrap resamples behind the interval of the kernel distance."""
    seed: int = 0
    """Of the bootstrap, and of which held-out pictures are compared."""

    def build(self) -> Memorization:
        """Return the metric."""
        return Memorization(self)
