"""Fréchet distance: against closed forms, other implementations, and what must not matter."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan.metrics.frechet import Gaussian, distance, frechet_distance, statistics
from pygan.metrics.moments import Moments


@pytest.fixture(autouse=True)
def no_matrix_root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SciPy's root raises, except where another implementation calls it."""
    if "clean_fid" not in request.node.name:

        def fail(*args: object, **options: object) -> None:
            raise AssertionError("scipy.linalg.sqrtm was called")

        monkeypatch.setattr("scipy.linalg.sqrtm", fail)
    yield


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _with_moments(n: int, mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Rows whose sample mean and covariance are exactly those given."""
    x = _normal(n, len(mean), seed)
    x = x - x.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)))
    return x @ whiten.T @ torch.linalg.cholesky(covariance).T + mean


def _by_definition(x: Tensor, y: Tensor) -> float:
    """With the symmetric root R of S1: tr((S1 S2)^(1/2)) is the sum of the roots of the eigenvalues of R S2 R."""
    s, t = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(s)
    root = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ t @ root).clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + s.trace() + t.trace() - 2 * cross)


@pytest.mark.parametrize("tiny", [1.0, 1e-6, 1e-12])
def test_commuting_covariances_have_a_closed_form(tiny: float) -> None:
    # with covariances diag(s) and diag(t) the distance is |m1 - m2|^2 + sum (sqrt(s) - sqrt(t))^2
    s, t = torch.tensor([tiny, 4.0, 9.0]).double(), torch.tensor([4 * tiny, 4.0, 1.0]).double()
    zero, mean = torch.zeros(3).double(), torch.tensor([1.0, -2.0, 0.5]).double()
    real, gen = _with_moments(50, zero, s.diag(), 0), _with_moments(40, mean, t.diag(), 1)
    expected = (1 + 4 + 0.25) + (tiny * (1 - 2) ** 2 + 0 + (3 - 1) ** 2)
    assert frechet_distance(real, gen) == pytest.approx(expected, rel=1e-10)


def test_two_dimensions_have_a_closed_form() -> None:
    # tr M^(1/2) = sqrt(tr M + 2 sqrt(det M)) for 2x2 matrices M = S1 S2
    s = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    t = torch.tensor([[1.0, -0.3], [-0.3, 3.0]]).double()
    zero = torch.zeros(2).double()
    root = math.sqrt(float((s @ t).trace()) + 2 * math.sqrt(float(torch.linalg.det(s @ t))))
    expected = float(s.trace() + t.trace()) - 2 * root
    assert frechet_distance(_with_moments(30, zero, s, 2), _with_moments(25, zero, t, 3)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(100, 90), (20, 30), (20, 90), (90, 20), (41, 40)])
def test_every_pair_of_paths_is_the_definition(n: int, m: int) -> None:
    x, y = _normal(n, 40, 5), 1.4 * _normal(m, 40, 6) + 0.3
    assert frechet_distance(x, y) == pytest.approx(_by_definition(x, y), rel=1e-6)  # the definition squares, we do not


def test_few_and_many_rows_take_paths_that_agree() -> None:
    # repeating rows changes a covariance only by (N - 1) against (2 N - 1): undo that, and both paths see one Gaussian
    few, other = _normal(30, 40, 5), _normal(35, 40, 6)
    mean = few.mean(0)
    many = (few - mean).repeat(2, 1) * math.sqrt((2 * 30 - 1) / (2 * (30 - 1))) + mean
    assert len(few) < few.shape[1] < len(many)
    assert frechet_distance(many, other) == pytest.approx(frechet_distance(few, other), rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.8, 2.0, 4.0])
def test_a_set_has_no_distance_to_itself(decay: float) -> None:
    """Variances fall as rank ** (-2 decay), over up to twelve orders of magnitude."""
    scale = 10 * torch.arange(1, 65).double() ** -decay
    x = _normal(300, 64, 4) * scale @ torch.linalg.qr(_normal(64, 64, 9)).Q
    assert abs(frechet_distance(x, x)) <= 1e-6
    assert abs(frechet_distance(x, x.flip(0))) <= 1e-6
    few = x[:60]
    assert abs(frechet_distance(few, few)) <= 1e-10 and abs(frechet_distance(few, few.flip(0))) <= 1e-10


def test_dead_and_repeated_features_are_no_obstacle() -> None:
    x, y = 10 * _normal(200, 32, 4), 9 * _normal(180, 32, 5)
    for values in (x, y):
        values[:, :3] = 1.0
        values[:, 3] = values[:, 4]
    alive = [c for c in range(32) if c > 3]
    assert abs(frechet_distance(x, x)) <= 1e-6
    # equal columns are one column times sqrt 2, and dead ones are none
    merged = [values[:, alive] * torch.tensor([2**0.5] + [1.0] * 27).double() for values in (x, y)]
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(*merged), rel=1e-7)


def test_few_rows_meet_stored_moments() -> None:
    many, few = _normal(120, 30, 0), _normal(12, 30, 1) + 0.5
    for stored in (many, torch.cat([many[:, :29], many[:, :1]], 1)):  # regular, and singular
        reference = Gaussian.of_covariance(stored.mean(0), torch.cov(stored.T), len(stored))
        assert distance(reference, Gaussian.of(few)) == pytest.approx(_by_definition(stored, few), rel=1e-6)
        assert distance(Gaussian.of(few), reference) == pytest.approx(_by_definition(stored, few), rel=1e-6)


def test_it_equals_clean_fid_and_torch_fidelity() -> None:
    real, gen = _normal(300, 24, 7), 1.3 * _normal(250, 24, 8) + 0.2
    value = frechet_distance(real, gen)
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    theirs = [fidelity.fid_features_to_statistics(x) for x in (real, gen)]
    other = fidelity.fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert value == pytest.approx(other, rel=1e-6)
    cleanfid = pytest.importorskip("cleanfid.fid")
    moments = [(x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (real, gen)]
    try:
        other = cleanfid.frechet_distance(*moments[0], *moments[1])
    except TypeError as error:
        pytest.skip(f"this SciPy no longer has the argument that clean-fid passes: {error}")
    assert value == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("n", [300, 20])
def test_order_changes_no_bit_and_batches_only_rounding(n: int) -> None:
    real, gen = _normal(n, 24, 9).float(), _normal(n, 24, 10).float() + 0.1
    value = frechet_distance(real, gen)
    assert value == frechet_distance(real.flip(0), gen[torch.randperm(n)])
    for size in (1, 7, n):
        streamed = Gaussian.of_moments(_streamed(real, size))
        assert distance(streamed, Gaussian.of(gen)) == pytest.approx(value, rel=1e-9 if n > 24 else 1e-6)


def _streamed(x: Tensor, size: int) -> Moments:
    moments = Moments(x.shape[1])
    for part in x.split(size):
        moments.add(part)
    return moments


def test_what_is_stored_of_a_reference_gives_the_same_distance() -> None:
    features = {"train": _normal(100, 24, 0), "test": _normal(20, 24, 1)}
    stored = statistics(features)
    assert {name.partition(".")[0] for name in stored} == {"train"}  # few rows are their own factor
    gen = Gaussian.of(_normal(90, 24, 2))
    reference = Gaussian.from_tensors(stored, "train")
    assert distance(reference, gen) == distance(Gaussian.of(features["train"]), gen)
    assert Gaussian.from_tensors(stored, "test") is None


@pytest.mark.slow
def test_it_equals_clean_fid_in_2048_dimensions() -> None:
    """As many features as Inception has, in single precision, with a spectrum that falls."""
    cleanfid = pytest.importorskip("cleanfid.fid")
    scale = torch.arange(1, 2049).double() ** -0.8
    real, gen = ((_normal(2500, 2048, seed) * scale * (1 + 0.1 * seed)).float().numpy() for seed in (0, 1))
    moments = [(x.astype(np.float64).mean(0), np.cov(x, rowvar=False)) for x in (real, gen)]
    try:
        other = cleanfid.frechet_distance(*moments[0], *moments[1])
    except TypeError as error:
        pytest.skip(f"this SciPy no longer has the argument that clean-fid passes: {error}")
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(gen)) == pytest.approx(other, rel=1e-6)
