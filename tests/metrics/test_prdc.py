"""Precision, recall, density and coverage: on points whose neighbors can be counted by hand, and against others."""

import pytest
import torch
from torch import Tensor

from pygan.metrics.prdc import Spec


def _values(real: Tensor, gen: Tensor, k: int) -> dict[str, float]:
    return {name: entry["value"] for name, entry in Spec(k=k).build().compute(real, gen).items()}


def _line(*points: float) -> Tensor:
    return torch.tensor(points)[:, None]


def test_points_on_a_line() -> None:
    real = _line(0, 1, 3, 7)  # distance to the nearest other: 1, 1, 2, 4; balls [-1, 1], [0, 2], [1, 5], [3, 11]
    gen = _line(0.5, 4, 6, 20)  # distance to the nearest other: 3.5, 2, 2, 14; balls [-3, 4], [2, 6], [4, 8], [6, 34]
    # 0.5 lies in two real balls, 4 in two, 6 in one, 20 in none
    # 0, 1, 3 lie in the ball of 0.5, 7 in that of 6
    # every real ball holds a generated point
    expected = {"precision": 3 / 4, "recall": 1.0, "density": (2 + 2 + 1 + 0) / 4, "coverage": 1.0}
    assert _values(real, gen, k=1) == pytest.approx(expected)


def test_two_neighbors() -> None:
    real = _line(0, 1, 3, 7)  # distance to the second nearest: 3, 2, 3, 6; balls [-3, 3], [-1, 3], [0, 6], [1, 13]
    gen = _line(-2, 10, 30, 31)  # distance to the second nearest: 32, 20, 21, 21; balls [-34, 30], [-10, 30], ...
    # -2 lies in the ball of 0 only, 10 in that of 7 only
    expected = {"precision": 2 / 4, "recall": 1.0, "density": (1 + 1) / (2 * 4), "coverage": 2 / 4}
    assert _values(real, gen, k=2) == pytest.approx(expected)


def test_a_border_belongs_to_the_ball() -> None:
    assert _values(_line(0, 1), _line(2, 50), k=1)["precision"] == 1 / 2


def test_excluded_borders() -> None:
    # the sets touch in one point: 2 lies on the border of [0, 2], the ball of 1
    values = Spec(k=1, border="excluded").build().compute(_line(0, 1), _line(2, 50))
    assert values["precision"]["value"] == 0 and "open balls" in values["precision"]["protocol"]


def test_a_collapsed_generator_has_precision_without_recall_or_coverage() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    gen = real[:1] + 1e-6 * torch.randn(200, 4, generator=generator, dtype=torch.float64)
    values = _values(real, gen, k=5)
    assert values["precision"] == 1
    assert values["recall"] <= 1 / 200
    assert values["coverage"] < 0.2


def test_disjoint_sets_share_nothing() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    assert set(_values(x, x + 1000, k=3).values()) == {0.0}


def test_equal_sets_share_everything() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    values = _values(x, x.flip(0), k=3)
    assert values["precision"] == values["recall"] == values["coverage"] == 1


def test_it_equals_torch_fidelity() -> None:
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(150, 6, generator=generator, dtype=torch.float64)
    gen = 0.8 * torch.randn(150, 6, generator=generator, dtype=torch.float64) + 0.3
    other = prc.prc_features_to_metric(
        gen, real, prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False
    )
    values = _values(real, gen, k=3)
    assert values["precision"] == pytest.approx(other["precision"], rel=1e-6)
    assert values["recall"] == pytest.approx(other["recall"], rel=1e-6)


def test_the_larger_set_is_cut_to_the_smaller_whatever_the_order() -> None:
    generator = torch.Generator().manual_seed(4)
    real, gen = torch.randn(70, 5, generator=generator), torch.randn(40, 5, generator=generator)
    result = Spec().build().compute(real, gen)
    assert result == Spec().build().compute(real[torch.randperm(70)], gen.flip(0))
    assert "40 real and 40 generated" in result["precision"]["protocol"]


def test_intervals_hold_the_value_and_share_its_range() -> None:
    generator = torch.Generator().manual_seed(5)
    result = Spec().build().compute(torch.randn(60, 5, generator=generator), torch.randn(60, 5, generator=generator))
    assert set(result) == {"precision", "recall", "density", "coverage"}
    for name, entry in result.items():
        low, high = entry["interval"]
        assert 0 <= low <= entry["value"] <= high and low < high
        assert name == "density" or high <= 1


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 rows"):
        Spec(k=5).build().compute(torch.randn(10, 2), torch.randn(5, 2))
