"""Class weights against published tables and by hand, and power iteration against singular values."""

import pytest
import torch

from pygan.context import Context
from pygan.errors import ConfigError, DataError
from pygan.regularizers.class_tables import SingularVectors, class_weights

LT_100 = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
LT_1000 = (5000, 2320, 1077, 500, 232, 107, 50, 23, 10, 5)
LSUN_100 = (50000, 15811, 5000, 1581, 500)
LSUN_1000 = (50000, 8891, 1581, 281, 50)
PUBLISHED = [
    (LT_100, 0.99, [0.784, 0.784, 0.784, 0.784, 0.785, 0.800, 0.868, 1.041, 1.385, 1.984]),
    (LT_100, 0.999, [0.181, 0.189, 0.216, 0.273, 0.378, 0.561, 0.869, 1.386, 2.258, 3.688]),
    (LT_1000, 0.99, [0.223, 0.223, 0.223, 0.224, 0.247, 0.338, 0.564, 1.080, 2.331, 4.547]),
    (LSUN_100, 0.99, [0.999, 0.999, 0.999, 0.999, 1.005]),
    (LSUN_1000, 0.999, [0.180, 0.180, 0.226, 0.733, 3.682]),
]
"""Weights divided by their mean that the release computes for its data sets, to three decimals."""


def context(counts: tuple[int, ...]) -> Context:
    return Context(resolution=32, num_classes=len(counts), class_counts=counts)


@pytest.mark.parametrize(("counts", "beta", "expected"), PUBLISHED)
def test_published_weights(counts, beta, expected):
    weights = class_weights(context(counts), "effective_number", beta)
    assert weights.tolist() == pytest.approx(expected, abs=6e-4)
    assert weights.mean().item() == pytest.approx(1)


def test_weights_by_hand():
    """beta 1/2: E_1 = 1, E_2 = 3/2, E_3 = 7/4, so weights are as 1 : 2/3 : 4/7, that is 21 : 14 : 12."""
    weights = class_weights(context((3, 1, 2)), "effective_number", 0.5)
    assert weights.tolist() == pytest.approx([3 * 12 / 47, 3 * 21 / 47, 3 * 14 / 47])
    assert class_weights(context((3, 1, 2)), "effective_number", 0.0).tolist() == [1, 1, 1]
    assert class_weights(context((3, 1, 2)), "uniform", 0.99).tolist() == [1, 1, 1]


def test_towards_one_the_weights_are_one_over_the_pictures():
    """E_n goes to n, so the weights of 8, 4 and 1 pictures go to 1 : 2 : 8 of the mean 11 / 3."""
    weights = class_weights(context((8, 4, 1)), "effective_number", 1 - 1e-9)
    assert weights.tolist() == pytest.approx([3 / 11, 6 / 11, 24 / 11], rel=1e-4)


def test_no_classes_and_no_pictures_are_refused():
    with pytest.raises(ConfigError, match="needs labels"):
        class_weights(Context(resolution=32), "uniform", 0.0)
    with pytest.raises(ConfigError, match="2 classes, expected 3"):
        class_weights(Context(resolution=32, num_classes=3, class_counts=(1, 2)), "uniform", 0.0)
    with pytest.raises(DataError, match="class 1 has no training picture"):
        class_weights(context((2, 0, 1)), "effective_number", 0.9)


def matrices(seed: int = 0, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(3, h, w, generator=generator) for h, w in ((4, 6), (2, 3), (4, 6))]


def exact(values: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.linalg.svdvals(matrix)[:, 0] for matrix in values]


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e4])
def test_power_iteration_finds_the_singular_values(scale):
    vectors = SingularVectors([(4, 6), (2, 3), (4, 6)], 3, iterations=4, seed=0)
    for _ in range(10):
        found = vectors(matrices(scale=scale))
    torch.testing.assert_close(found, exact(matrices(scale=scale)), rtol=1e-3, atol=0)


def test_the_first_call_takes_ten_times_the_iterations():
    shapes = [(4, 6), (2, 3), (4, 6)]
    once, often = (SingularVectors(shapes, 3, iterations=k, seed=0) for k in (10, 1))
    state = {name: value.clone() for name, value in once.state_dict().items()}
    state["started"].fill_(True)
    once.load_state_dict(state)  # ten iterations, the state saying that this is not the first call
    torch.testing.assert_close(once(matrices()), often(matrices()), rtol=0, atol=0)
    assert once.iterations_due() == 10 and often.iterations_due() == 1


def test_a_matrix_that_was_zero_is_found_again():
    shapes = [(4, 6), (2, 3), (4, 6)]
    vectors = SingularVectors(shapes, 3, iterations=4, seed=0)
    zero = [torch.zeros_like(matrix) for matrix in matrices()]
    for _ in range(3):
        assert all(not sigma.any() for sigma in vectors(zero))
    for _ in range(10):
        found = vectors(matrices())
    torch.testing.assert_close(found, exact(matrices()), rtol=1e-3, atol=0)
