"""The metric: its record, its stored reference, its name, and when it may be extrapolated."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pygan.errors import ConfigError, NumericalError
from pygan.metrics.base import measure, measured_name
from pygan.metrics.fid import Spec, subset_sizes
from pygan.metrics.frechet import Gaussian, frechet_distance


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_order_does_not_matter_and_the_record_is_complete() -> None:
    real, gen = _normal(30, 8, 9), _normal(20, 8, 10)
    result = Spec().build().compute(real.float(), gen.float())
    assert result == Spec().build().compute(real.float().flip(0), gen.float()[torch.randperm(20)])
    assert set(result) == {"fd"} and result["fd"]["interval"] is None
    assert "30 real, 20 generated" in result["fd"]["protocol"] and "\n" not in result["fd"]["protocol"]
    assert result["fd"]["value"] == frechet_distance(real.float(), gen.float())


@pytest.mark.parametrize(("rows", "deficient"), [(8, True), (9, False)])
def test_rank_deficiency_is_reported(rows: int, deficient: bool) -> None:
    entry = Spec().build().compute(_normal(50, 8, 11), _normal(rows, 8, 12))["fd"]
    assert entry["rank_deficient"] is deficient and ("rank-deficient" in entry["protocol"]) is deficient


def test_the_matrix_root_of_scipy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.linalg.sqrtm", lambda *args, **kwargs: pytest.fail("scipy.linalg.sqrtm was called"))
    Spec().build().compute(_normal(50, 8, 13), _normal(50, 8, 14))


def test_a_stored_reference_takes_the_place_of_the_features() -> None:
    real, gen, other = _normal(50, 8, 0), _normal(40, 8, 1), _normal(60, 8, 2)
    metric = Spec().build()
    given = measure([metric], "net", real, gen, reference=Gaussian.of(real))
    assert given == measure([metric], "net", real, gen)
    assert metric.compute(real, gen, Gaussian.of(other))["fd"]["value"] == frechet_distance(other, gen)


def test_features_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NumericalError, match="real features: 50 of 50"):
        Spec().build().compute(_normal(50, 8, 15) * float("nan"), _normal(50, 8, 16))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("inception_v3", "fid"),
        ("inception_v3_legacy_pytorch", "fid_legacy_pytorch"),
        ("inception_v3_legacy_tensorflow", "fid_legacy_tensorflow"),
        ("inception_v3_random", "fd_inception_v3_random"),
        ("mobilenet_v2", "fd_mobilenet_v2"),
        ("mobilenet_v2_legacy_pytorch", "fd_mobilenet_v2_legacy_pytorch"),
    ],
)
def test_only_inceptions_own_weights_make_it_a_fid(network: str, name: str) -> None:
    assert measured_name("fd", network) == name


def test_extrapolation_takes_the_bias_of_few_generated_pictures_away() -> None:
    """Of equal Gaussians with covariance I, M generated ones are D / M away in the mean, and in the covariance S with
    sum (1 - root of an eigenvalue of S)^2, about |S - I|^2 / 4, of which the expectation is D (D + 1) / (4 M)."""
    real, gen = _normal(200000, 8, 3).float(), _normal(10000, 8, 4).float()
    results = Spec(infinity=True).build().compute(real, gen)
    assert set(results) == {"fd", "fd_infinity"} and "15 subsets of 5000 to 10000" in results["fd_infinity"]["protocol"]
    bias = (8 + 8 * 9 / 4) / 10000
    assert results["fd"]["value"] == pytest.approx(bias, rel=0.3)
    assert abs(results["fd_infinity"]["value"]) < bias / 2


def test_extrapolation_is_exact_on_the_line() -> None:
    """In one dimension without spread the distance of every subset is the same, so the intercept is that distance."""
    real, gen = torch.zeros(100, 1), torch.full((10000, 1), 3.0)
    assert Spec(infinity=True).build().compute(real, gen)["fd_infinity"]["value"] == pytest.approx(9, rel=1e-9)


@pytest.mark.parametrize(("n_real", "n_gen", "dimensions"), [(4000, 10000, 2048), (5000, 9999, 8), (9000, 11000, 3000)])
def test_extrapolation_is_refused_where_the_line_does_not_hold(n_real: int, n_gen: int, dimensions: int) -> None:
    with pytest.raises(ConfigError, match=rf"fid.infinity got {n_real} real and {n_gen} generated pictures, expected"):
        subset_sizes(n_real, n_gen, dimensions)


def test_subsets_of_the_paper() -> None:
    sizes = subset_sizes(50000, 50000, 2048)
    assert len(sizes) == 15 and sizes[0] == 5000 and sizes[-1] == 50000
    assert {b - a for a, b in pairwise(sizes)} <= {3214, 3215}
