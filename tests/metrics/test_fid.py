"""Fréchet distance: against closed forms, other implementations, and what must not matter."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan.errors import NumericalError
from pygan.metrics.fid import Spec, frechet_distance


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _with_moments(n: int, mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Rows whose sample mean and covariance are exactly those given."""
    x = _normal(n, len(mean), seed)
    x = x - x.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T)))
    return x @ whiten.T @ torch.linalg.cholesky(covariance).T + mean


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


@pytest.mark.parametrize(("rows", "dimensions"), [(200, 32), (20, 64)])
def test_a_set_has_no_distance_to_itself(rows: int, dimensions: int) -> None:
    x = 10 * _normal(rows, dimensions, 4)
    x[:, :3] = 1.0  # dead features make the covariance singular
    assert abs(frechet_distance(x, x)) <= 1e-10 * float(torch.var(x, 0).sum())
    assert abs(Spec().build().compute(x, x.flip(0))["fd"]["value"]) <= 1e-6


def test_few_and_many_rows_take_paths_that_agree() -> None:
    # repeating rows changes a covariance only by (N - 1) against (2 N - 1): undo that, and both paths see one Gaussian
    few, other = _normal(30, 40, 5), _normal(35, 40, 6)
    mean = few.mean(0)
    many = (few - mean).repeat(2, 1) * math.sqrt((2 * 30 - 1) / (2 * (30 - 1))) + mean
    assert len(few) < few.shape[1] < len(many)
    assert frechet_distance(many, other) == pytest.approx(frechet_distance(few, other), rel=1e-10)


def test_it_equals_clean_fid_and_torch_fidelity() -> None:
    real, gen = _normal(300, 24, 7), 1.3 * _normal(250, 24, 8) + 0.2
    value = frechet_distance(real, gen)
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = [fidelity.fid_features_to_statistics(x) for x in (real, gen)]
    other = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert value == pytest.approx(other, rel=1e-6)
    cleanfid = pytest.importorskip("cleanfid.fid")
    moments = [(x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (real, gen)]
    try:
        other = cleanfid.frechet_distance(*moments[0], *moments[1])
    except TypeError as error:
        pytest.skip(f"this SciPy no longer has the argument that clean-fid passes: {error}")
    assert value == pytest.approx(other, rel=1e-6)


def test_order_does_not_matter_and_the_record_is_complete() -> None:
    real, gen = _normal(30, 8, 9), _normal(20, 8, 10)
    result = Spec().build().compute(real.float(), gen.float())
    assert result == Spec().build().compute(real.float().flip(0), gen.float()[torch.randperm(20)])
    assert set(result) == {"fd"} and result["fd"]["interval"] is None
    assert "30 real, 20 generated" in result["fd"]["protocol"] and "\n" not in result["fd"]["protocol"]


@pytest.mark.parametrize(("rows", "deficient"), [(8, True), (9, False)])
def test_rank_deficiency_is_reported(rows: int, deficient: bool) -> None:
    entry = Spec().build().compute(_normal(50, 8, 11), _normal(rows, 8, 12))["fd"]
    assert entry["rank_deficient"] is deficient and ("rank-deficient" in entry["protocol"]) is deficient


def test_the_matrix_root_of_scipy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.linalg.sqrtm", lambda *args, **kwargs: pytest.fail("scipy.linalg.sqrtm was called"))
    Spec().build().compute(_normal(50, 8, 13), _normal(50, 8, 14))


def test_features_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NumericalError, match="real features: 50 of 50"):
        Spec().build().compute(_normal(50, 8, 15) * float("nan"), _normal(50, 8, 16))
