"""Which training pictures a run may use: n of them, a fraction, or a long tail; drawn by the run's seed.

For one seed the draws of a method are nested: the first 50 pictures are among the first 100.
"""

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pygan.draws import permutation
from pygan.errors import ConfigError
from pygan.spec import parse, spec

_STREAM = "subset"


@spec
class NShot:
    """Draw a fixed number of pictures."""

    kind: Literal["n_shot"] = "n_shot"
    n: int = Field(gt=0)
    """Pictures in all, or of each class where `per_class` is set."""
    per_class: bool = False
    """Draw `n` of each class."""

    def select(self, labels: np.ndarray, seed: int) -> np.ndarray:
        if not self.per_class:
            return _draw(np.arange(len(labels)), self.n, seed, _STREAM, "the training split")
        return _draw_classes(labels, [self.n] * _num_classes(labels), seed)


@spec
class Fraction:
    """Draw a share of all pictures, as in "10 % of CIFAR-10"."""

    kind: Literal["fraction"] = "fraction"
    fraction: float = Field(gt=0, le=1)
    """Share of the pictures, rounded to the nearest whole number and at least one."""

    def select(self, labels: np.ndarray, seed: int) -> np.ndarray:
        n = max(1, round(self.fraction * len(labels)))
        return _draw(np.arange(len(labels)), n, seed, _STREAM, "the training split")


@spec
class LongTailed:
    """Draw fewer pictures from each next class.

    Class c of C keeps n_c pictures (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
    section 5.1; "step" from Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019, section 4):
        exponential: n_c = floor(n_max * imbalance_factor ** (-c / (C - 1)))
        step: n_c = n_max in the first C // 2 classes and floor(n_max / imbalance_factor) in the others
    """

    kind: Literal["long_tailed"] = "long_tailed"
    imbalance_factor: float = Field(ge=1)
    """n_max divided by the size of the smallest class; 100 gives 5000 to 50 pictures on CIFAR-10."""
    n_max: int | None = Field(default=None, gt=0)
    """Pictures of the largest class; null: the number of pictures divided by the number of classes."""
    profile: Literal["exponential", "step"] = "exponential"
    """How the counts fall."""

    def counts(self, labels: np.ndarray) -> list[int]:
        """Return n_c for each class."""
        classes = _num_classes(labels)
        n_max = self.n_max or len(labels) // classes
        if self.profile == "step":
            exponents = [0.0 if c < classes // 2 else 1.0 for c in range(classes)]
        else:
            exponents = [c / max(1, classes - 1) for c in range(classes)]
        # the small term keeps 5000 / 100 from becoming 49
        return [math.floor(n_max * self.imbalance_factor**-exponent + 1e-9) for exponent in exponents]

    def select(self, labels: np.ndarray, seed: int) -> np.ndarray:
        return _draw_classes(labels, self.counts(labels), seed)


Subset = Annotated[NShot | Fraction | LongTailed, Field(discriminator="kind")]
"""Any of the specs, told apart by `kind`."""


def parse_subset(values: dict[str, Any], key: str = "subset") -> NShot | Fraction | LongTailed:
    """Return the spec of a YAML mapping; raise `ConfigError` naming the offending key under `key`."""
    return parse(Subset, values, key)


def select(labels: np.ndarray, subset: NShot | Fraction | LongTailed | None, seed: int) -> np.ndarray:
    """Return the indices of the pictures that a run may use, ascending int64 `[n]`.

    Args:
        labels: int64 `[N]`, labels of the training split.
        subset: how to draw them; None: all.
        seed: the run's seed.

    Raises:
        ConfigError: more pictures are asked for than there are.
    """
    return np.arange(len(labels)) if subset is None else subset.select(labels, seed)


def _num_classes(labels: np.ndarray) -> int:
    return int(labels.max()) + 1


def _draw(candidates: np.ndarray, n: int, seed: int, stream: str, where: str) -> np.ndarray:
    if n > len(candidates):
        raise ConfigError(f"subset: got n = {n}, expected at most the {len(candidates)} pictures of {where}")
    return np.sort(candidates[permutation(seed, stream, len(candidates))[:n].numpy()])


def _draw_classes(labels: np.ndarray, counts: list[int], seed: int) -> np.ndarray:
    drawn = [_draw(np.flatnonzero(labels == c), n, seed, f"{_STREAM}/{c}", f"class {c}") for c, n in enumerate(counts)]
    return np.sort(np.concatenate(drawn))
