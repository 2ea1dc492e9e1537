"""Linear probe: how well does a linear classifier on frozen features tell real pictures from generated ones?

Kumari et al., "Ensembling Off-the-shelf Models for GAN Training", CVPR 2022, arXiv 2112.09130, section 3.3: the network
that separates them best becomes the next discriminator. The paper ranks by the lowest cross-entropy on held-out
pictures, its official code by the highest accuracy; both are returned. The classifier is the official code's:
scikit-learn's logistic regression, L2, C = 0.2, on features that are not standardized. Differs from the official code
in that the generated pictures are shuffled before they are halved, too.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pygan.draws import permutation
from pygan.errors import NumericalError

CRITERIA = ("accuracy", "cross_entropy")

SEPARABLE = 0.9
"""Accuracy above which the official code smooths the labels of a network's heads."""


def linear_probe(real: Tensor, gen: Tensor, *, seed: int, repeats: int = 3) -> dict[str, float | list[float]]:
    """Fit on one half of the features, judge the other half, `repeats` times with other halves.

    Args:
        real: features of real pictures, `[N, D]`, at least 4.
        gen: features of generated pictures, `[M, D]`, at least 4.
        seed: decides the halves.
        repeats: number of random splits whose held-out results are averaged.

    Returns:
        "accuracy" and "bce" (cross-entropy in nats, of probabilities clipped to [1e-7, 1 - 1e-7]) on the held-out
        halves, each averaged over the repeats, and their 95 % intervals "accuracy_ci" and "bce_ci": over the sampling
        of the pictures, for the classifiers as they were fitted.

    Raises:
        ValueError: shapes that don't fit.
        NumericalError: features that are not finite.
    """
    from scipy.stats import binomtest
    from sklearn.linear_model import LogisticRegression

    if real.dim() != 2 or gen.dim() != 2 or real.shape[1] != gen.shape[1] or min(len(real), len(gen)) < 4:
        raise ValueError(f"expected [N, D] and [M, D] with at least 4 rows, got {[*real.shape]} and {[*gen.shape]}")
    if not (real.isfinite().all() and gen.isfinite().all()):
        raise NumericalError("the probe's features contain values that are not finite")
    features = np.concatenate([real.cpu().double().numpy(), gen.cpu().double().numpy()])
    labels = np.repeat([1, 0], [len(real), len(gen)])
    judged, correct, cross_entropy = (np.zeros(len(labels)) for _ in range(3))  # per picture, summed over the repeats
    for repeat in range(repeats):
        order_real = permutation(seed, f"probe/real{repeat}", len(real)).numpy()
        order_gen = permutation(seed, f"probe/gen{repeat}", len(gen)).numpy() + len(real)
        half_real, half_gen = len(real) // 2, len(gen) // 2
        train = np.concatenate([order_real[:half_real], order_gen[:half_gen]])
        test = np.concatenate([order_real[half_real:], order_gen[half_gen:]])
        classifier = LogisticRegression(C=0.2, max_iter=5000).fit(features[train], labels[train])
        p_real = classifier.predict_proba(features[test])[:, 1]
        p_true = np.clip(np.where(labels[test] == 1, p_real, 1 - p_real), 1e-7, 1 - 1e-7)
        judged[test] += 1
        correct[test] += (p_real > 0.5) == (labels[test] == 1)
        cross_entropy[test] -= np.log(p_true)
    accuracy = float(correct.sum() / judged.sum())
    bce = float(cross_entropy.sum() / judged.sum())
    pictures = int((judged > 0).sum())
    wilson = binomtest(round(accuracy * pictures), pictures).proportion_ci(method="wilson")
    half_width = 1.96 * float(np.sqrt(np.square(cross_entropy - bce * judged).sum())) / float(judged.sum())
    return {
        "accuracy": accuracy,
        "accuracy_ci": [float(wilson.low), float(wilson.high)],
        "bce": bce,
        "bce_ci": [max(bce - half_width, 0.0), bce + half_width],
    }


def rank(results: Mapping[str, Mapping[str, float]], criterion: str = "accuracy") -> list[str]:
    """Return the networks' names, the best separating first; equals keep the order of `results`.

    Args:
        results: what `linear_probe` returned, per network.
        criterion: "accuracy" (highest first, the official code) or "cross_entropy" (lowest first, the paper).
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion: got {criterion!r}, expected one of {', '.join(CRITERIA)}")
    if criterion == "accuracy":
        return sorted(results, key=lambda name: -results[name]["accuracy"])
    return sorted(results, key=lambda name: results[name]["bce"])
