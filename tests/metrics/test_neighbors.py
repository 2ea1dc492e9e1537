"""Nearest pictures: against a search that tries everything, one pair after the other."""

from itertools import product

import pytest
import torch
from torch import Tensor

from pygan.metrics.neighbors import nearest, nearest_moved


def _pictures(n: int, seed: int, side: int = 8) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_finds_what_trying_everything_finds() -> None:
    query, reference = _pictures(7, 0), _pictures(30, 1)
    found = nearest(query, reference, 5)
    for i, x in enumerate(query.double()):
        distances = torch.stack([(x - y).square().sum().sqrt() for y in reference.double()])
        expected = distances.sort()
        assert found.index[i].tolist() == expected.indices[:5].tolist()
        torch.testing.assert_close(found.distance[i], expected.values[:5], rtol=1e-12, atol=0)


def test_the_pieces_of_a_large_set_are_joined() -> None:
    """2,500 numbers on a line: the neighbors of 1023.4 lie on both sides of the border of a piece."""
    reference = torch.arange(2500.0)[torch.randperm(2500, generator=torch.Generator().manual_seed(0))][:, None]
    found = nearest(torch.tensor([[1023.4], [2499.0]]), reference, 3)
    assert [reference[i, 0].item() for i in found.index[0]] == [1023, 1024, 1022]
    torch.testing.assert_close(
        found.distance, torch.tensor([[0.4, 0.6, 1.4], [0.0, 1.0, 2.0]], dtype=torch.float64), rtol=0, atol=1e-4
    )


def test_a_copy_has_distance_zero_however_large_the_numbers() -> None:
    reference = 1e4 + _pictures(20, 2)
    found = nearest(reference[[3, 11]], reference)
    assert found.index[:, 0].tolist() == [3, 11] and (found.distance[:, 0] == 0).all()
    assert (found.distance[:, 1] > 0).all()


def test_bytes_are_numbers() -> None:
    white, black = (torch.full((1, 3, 2, 2), value, dtype=torch.uint8) for value in (255, 0))
    found = nearest(white, torch.cat([black, white]))
    assert found.index.tolist() == [[1, 0]] and found.distance.tolist() == [[0, pytest.approx(255 * 12**0.5)]]


def _tried(x: Tensor, y: Tensor, shift: int, limit: float) -> tuple[float, tuple]:
    """The smallest distance over the group, with the change of brightness from a fine grid, and its change."""
    inner, best = x[:, shift:-shift, shift:-shift], (float("inf"), ())
    height, width = inner.shape[1:]
    for flipped, dy, dx in product((False, True), range(-shift, shift + 1), range(-shift, shift + 1)):
        other = (y.flip(2) if flipped else y)[:, shift + dy :, shift + dx :][:, :height, :width]
        offset = torch.linspace(-limit, limit, 401, dtype=torch.float64)
        distance, place = (inner + offset[:, None, None, None] - other).square().sum((1, 2, 3)).sqrt().min(0)
        best = min(best, (distance.item(), (flipped, dy, dx, offset[place].item())))
    return best


def test_over_flips_shifts_and_brightness_it_finds_what_trying_everything_finds() -> None:
    query, reference = _pictures(4, 3, 6).double(), _pictures(5, 4, 6).double()
    query[0] += 0.3  # some differences of the means exceed the limit, some do not
    found = nearest_moved(query, reference, shift=1, brightness=0.2)
    for i, x in enumerate(query):
        tried = sorted((*_tried(x, y, 1, 0.2), j) for j, y in enumerate(reference))
        (first, (flipped, dy, dx, offset), _), second = tried[:2]
        assert found.index[i].tolist() == [j for *_, j in tried[:2]]
        # the grid of step 0.001 misses the best offset by 0.0005 at most, and 48 values by 48 * 0.0005^2 in the square
        for got, grid in zip(found.distance[i].tolist(), (first, second[0]), strict=True):
            assert grid**2 - 48 * 0.0005**2 <= got**2 <= grid**2 + 1e-9
        assert (bool(found.flipped[i]), *found.shift[i].tolist()) == (flipped, dy, dx)
        assert float(found.brightness[i]) == pytest.approx(offset, abs=0.0006)


@pytest.mark.parametrize(
    ("flipped", "dy", "dx", "offset"), [(False, 2, -3, 0.0), (True, -4, 4, 0.3), (True, 0, 1, -0.5)]
)
def test_a_moved_copy_is_found_with_the_way_it_was_moved(flipped: bool, dy: int, dx: int, offset: float) -> None:
    reference = _pictures(40, 5, 16) / 3
    copy = reference[17].flip(2) if flipped else reference[17]
    copy = torch.roll(copy, (-dy, -dx), (1, 2)) - offset  # what leaves on one side enters on the other
    found = nearest_moved(copy[None], reference)
    assert found.index[0, 0] == 17 and float(found.distance[0, 0]) < 1e-5 < 1 < float(found.distance[0, 1])
    assert bool(found.flipped[0]) is flipped and found.shift[0].tolist() == [dy, dx]
    assert float(found.brightness[0]) == pytest.approx(offset, abs=1e-6)


def test_more_brightness_than_allowed_is_distance() -> None:
    reference = _pictures(3, 6, 16)
    found = nearest_moved(reference[:1] + 0.7, reference, shift=0, brightness=0.5)
    assert float(found.distance[0, 0]) == pytest.approx((0.7 - 0.5) * (3 * 16 * 16) ** 0.5, rel=1e-5)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 pictures to search, got 2"):
        nearest(_pictures(1, 0), _pictures(2, 1), 3)
    with pytest.raises(ValueError, match="of one shape"):
        nearest(_pictures(1, 0), _pictures(2, 1, 9))
    with pytest.raises(ValueError, match="larger than twice a shift of 4"):
        nearest_moved(_pictures(1, 0), _pictures(2, 1), shift=4)
