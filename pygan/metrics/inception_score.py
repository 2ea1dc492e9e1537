"""Classifier score: are pictures of one class each, and of all classes together?

Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv 1606.03498, section 4: exp of the mean KL
divergence of p(y|x) from p(y), with p the classifier's softmax and p(y) its mean over the pictures. Their classifier is
Inception; here it is that of the judge, whose name the number carries, and values of two classifiers have nothing in
common. Real pictures play no part, so it says nothing about a domain that the classifier does not know. Few pictures
lower it.

Published numbers are means over 10 parts of 5,000 pictures (official code), or one part (others): `splits`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.draws import permutation
from pygan.metrics.base import prepared
from pygan.spec import spec


def scores(logits: Tensor, splits: int) -> Tensor:
    """Return the score of each of `splits` consecutive parts of `logits` `[N, classes]`, float64 `[splits]`."""
    log_p = logits.double().log_softmax(1)
    parts = log_p.tensor_split(splits)
    marginals = (part.logsumexp(0) - torch.tensor(len(part)).log() for part in parts)
    return torch.stack([(p.exp() * (p - m)).sum(1).mean().exp() for p, m in zip(parts, marginals, strict=True)])


class ClassifierScore:
    """Computes "is"."""

    needs = ("classify",)

    def __init__(self, splits: int, seed: int) -> None:
        self.splits = splits
        self.seed = seed

    def compute(self, real: Tensor, gen: Tensor, *, classify: Callable[[Tensor], Tensor]) -> dict[str, dict[str, Any]]:
        """Judge the features `gen` `[M, D]`; `real` are not looked at.

        Args:
            classify: features, float32 `[N, D]`, to logits `[N, classes]`.

        Raises:
            ValueError: fewer than two pictures for each part.
        """
        from scipy import stats

        _, gen = prepared(real, gen, at_least=2)
        if len(gen) < 2 * self.splits:
            raise ValueError(f"expected at least {2 * self.splits} pictures for {self.splits} parts, got {len(gen)}")
        order = permutation(self.seed, "metrics/inception_score", len(gen))
        values = scores(classify(gen[order].float()), self.splits)
        interval = None
        if self.splits > 1:
            half = float(stats.t.ppf(0.975, self.splits - 1) * values.std()) / self.splits**0.5
            interval = [float(values.mean()) - half, float(values.mean()) + half]
        protocol = (
            f"exp of the mean KL divergence of p(y|x) from p(y), mean over {self.splits} parts, {len(gen)} generated"
        )
        if interval:
            protocol += "; interval: 95 % t over the parts"
        return {"is": {"value": float(values.mean()), "interval": interval, "protocol": protocol}}


@spec
class Spec:
    """Classifier score, the Inception score of another network."""

    names: ClassVar[tuple[str, ...]] = ("is",)
    selects: ClassVar[bool] = False
    kind: Literal["inception_score"] = "inception_score"
    splits: int = Field(default=10, ge=1)
    """Parts whose scores are averaged; fewer pictures in a part lower its score."""
    seed: int = 0
    """Which pictures are in which part."""

    @staticmethod
    def unfit(network: Any) -> str | None:
        """Say why the metric cannot be computed from a network's features; None: it can."""
        return None if network.classifies else f"inception_score needs a classifier, {network.name} is none"

    def build(self) -> ClassifierScore:
        """Return the metric."""
        return ClassifierScore(self.splits, self.seed)
