"""Class-wise distances and diversity: how well a conditional generator makes each class, and the rare ones above all.

Every class's generated pictures are compared with the real ones of the class in the reference split, by three numbers:

- `kid`: the unbiased kernel distance (`pygan.metrics.kid`), the one to trust where pictures are few; its interval says
  how much they can tell.
- `fd`: the Fréchet distance on the first principal components of all real features, with as many pictures on both
  sides. In all dimensions the covariance of a rare class would be nearly all noise; even so, fewer pictures give larger
  values, so it compares runs on one class, not classes.
- `diversity`: the mean distance of two generated pictures divided by that of two real ones. It falls towards 0 as a
  class collapses, and has next to no bias from few pictures. Noise is diverse too, so it is read beside `kid`.

Averages over classes count all classes alike, which makes them a balanced evaluation also where the reference split is
not balanced (intra-class distances: Miyato and Koyama, ICLR 2018, arXiv 1802.05637, section 4.1). Head, middle and tail
are thirds of the classes by training pictures.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pygan.draws import permutation
from pygan.errors import DataError
from pygan.metrics.base import Labels, prepared
from pygan.metrics.frechet import frechet_distance
from pygan.metrics.kid import KernelDistance
from pygan.spec import spec

MEASURES = ("kid", "fd", "diversity")
GROUPS = ("head", "middle", "tail")

_PROTOCOLS = {
    "kid": "unbiased squared MMD within classes",
    "fd": "Fréchet distance within classes on the first {components} principal components of all real features",
    "diversity": "mean distance of two generated pictures of a class by that of two real ones",
}


def groups_of(counts: tuple[int, ...]) -> dict[str, list[int]]:
    """Return the class numbers of each of `GROUPS`, by falling training pictures; left-over classes join the head."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    parts = torch.tensor(order).tensor_split(len(GROUPS))
    return {name: part.tolist() for name, part in zip(GROUPS, parts, strict=True) if len(part)}


def mean_distance(x: Tensor) -> Tensor:
    """Return the mean distance of two different rows of `[N, D]`, N at least 2."""
    return torch.pdist(x).mean()


def principal_axes(x: Tensor, components: int) -> Tensor:
    """Return the directions of largest variance of `[N, D]`, orthonormal columns `[D, components]`, D at most."""
    return torch.linalg.eigh(x.T.cov()).eigenvectors.flip(1)[:, :components]


class IntraClass:
    """Computes the averages over classes and over the groups, with every class's value in `classes`."""

    needs = ("labels",)

    def __init__(self, components: int, at_least: int, resamples: int, seed: int) -> None:
        self.components = components
        self.at_least = at_least
        self.seed = seed
        self.kid = KernelDistance(resamples, seed)

    def compute(self, real: Tensor, gen: Tensor, labels: Labels | None = None) -> dict[str, dict[str, Any]]:
        """Compare the features `real` `[N, D]` and `gen` `[M, D]` class by class.

        Args:
            labels: None: all pictures are of one class.

        Raises:
            DataError: no class has enough pictures in both sets.
        """
        prepared(real, gen)
        labels = labels or Labels.one_class(len(real), len(gen))
        axes = principal_axes(real.double(), self.components)
        found: dict[int, dict[str, dict[str, Any]]] = {}
        for c in range(len(labels.names)):
            pair = real[labels.real == c], gen[labels.gen == c]
            if min(map(len, pair)) >= self.at_least:
                found[c] = self._class_values(*pair, axes) | {
                    "n": {"train": labels.train_counts[c], "real": len(pair[0]), "gen": len(pair[1])}
                }
        if not found:
            counts = (sets.bincount(minlength=len(labels.names)) for sets in (labels.real, labels.gen))
            most = torch.minimum(*counts).max().item()
            raise DataError(
                f"intra: got at most {most} real and as many generated pictures of one class, expected at least "
                f"{self.at_least} (`at_least`) in one class or more: raise `evaluate.n_gen`, or lower `at_least`"
            )
        results = {}
        for measure in MEASURES:
            groups = {"intra": sorted(found, key=lambda c: (-labels.train_counts[c], c))}
            groups |= groups_of(labels.train_counts)
            for group, members in groups.items():
                if measured := [c for c in members if c in found]:
                    results[f"{measure}_{group}"] = self._average(measure, group, measured, found, labels.names)
        return results

    def _class_values(self, real: Tensor, gen: Tensor, axes: Tensor) -> dict[str, dict[str, Any]]:
        real, gen = prepared(real, gen)
        n = min(len(real), len(gen))
        cut = (
            (x if len(x) == n else x[permutation(self.seed, f"metrics/intra/{name}", len(x))[:n]]) @ axes
            for x, name in ((real, "real"), (gen, "gen"))
        )
        return {
            "kid": self.kid.compute(real, gen)["kid"],
            "fd": {"value": frechet_distance(*cut), "interval": None},
            "diversity": {"value": float(mean_distance(gen) / mean_distance(real)), "interval": None},
        }

    def _average(
        self, measure: str, group: str, members: list[int], found: dict[int, dict], names: tuple[str, ...]
    ) -> dict[str, Any]:
        classes = {
            names[c]: {key: found[c][measure][key] for key in ("value", "interval")} | found[c]["n"] for c in members
        }
        which = "all classes" if group == "intra" else f"the {group} (a third of the classes by training pictures)"
        protocol = _PROTOCOLS[measure].format(components=self.components)
        return {
            "value": sum(entry["value"] for entry in classes.values()) / len(classes),
            "interval": None,
            "protocol": f"{protocol}; mean over {which} with at least {self.at_least} real pictures",
            "classes": classes,
        }


@spec
class Spec:
    """Class-wise distances and diversity."""

    needs_classes: ClassVar[bool] = True
    names: ClassVar[tuple[str, ...]] = tuple(f"{m}_{g}" for m in MEASURES for g in ("intra", *GROUPS))
    """What is computed, given three classes or more."""
    kind: Literal["intra"] = "intra"
    components: int = Field(default=16, ge=1)
    """Principal components that the Fréchet distance sees."""
    at_least: int = Field(default=20, ge=2)
    """Real, and generated, pictures of a class; classes with fewer are left out."""
    resamples: int = Field(default=200, ge=100)
    """Bootstrap resamples behind a class's interval of the kernel distance."""
    seed: int = 0
    """Of the bootstrap, and of which pictures the Fréchet distance leaves out."""

    @model_validator(mode="after")
    def _regular(self) -> "Spec":
        if self.components >= self.at_least:
            raise ValueError(f"components: got {self.components}, expected fewer than at_least = {self.at_least}")
        return self

    def build(self) -> IntraClass:
        """Return the metric."""
        return IntraClass(self.components, self.at_least, self.resamples, self.seed)
