"""Class-wise measures: by their definitions, blind to other classes, and what a collapse looks like."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from pygan.errors import ConfigError, DataError
from pygan.metrics.base import Labels, measure, measured_name
from pygan.metrics.frechet import frechet_distance
from pygan.metrics.intra import GROUPS, MEASURES, Spec, groups_of, mean_distance, principal_axes
from pygan.metrics.kid import Spec as Kid
from pygan.spec import load_spec

COUNTS = (50, 400, 10, 100)
NAMES = ("b", "a", "d", "c")


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(shrink: dict[int, float] | None = None, n: int = 40) -> tuple[Tensor, Tensor, Labels]:
    """Four classes around different centers; the generated pictures of some are drawn together."""
    real_c, gen_c = torch.arange(4 * n) % 4, torch.arange(4 * n).flip(0) % 4
    centers = 3 * _normal(4, 6, 9)
    real, gen = centers[real_c] + _normal(4 * n, 6, 0), _normal(4 * n, 6, 1)
    factors = torch.tensor([(shrink or {}).get(c, 1.0) for c in range(4)])
    gen = centers[gen_c] + gen * factors[gen_c][:, None]
    return real, gen, Labels(real=real_c, gen=gen_c, names=NAMES, train_counts=COUNTS)


def compute(real: Tensor, gen: Tensor, labels: Labels, **fields) -> dict:
    return Spec(components=3, at_least=5, **fields).build().compute(real, gen, labels)


def test_every_class_by_definition():
    real, gen, labels = features()
    found = compute(real, gen, labels)
    axes = principal_axes(real, 3)
    for c, name in enumerate(NAMES):
        x, y = real[labels.real == c], gen[labels.gen == c]
        spread = [sum(float((a - b).norm()) for a, b in combinations(z, 2)) for z in (x, y)]
        assert found["diversity_intra"]["classes"][name]["value"] == pytest.approx(spread[1] / spread[0])
        kid = Kid().build().compute(x, y)["kid"]["value"]
        assert found["kid_intra"]["classes"][name]["value"] == pytest.approx(kid)
        fd = frechet_distance(x @ axes, y @ axes)
        assert found["fd_intra"]["classes"][name]["value"] == pytest.approx(fd)


def test_averages_count_classes_alike_and_groups_follow_the_training_pictures():
    real, gen, labels = features(shrink={2: 0.1})
    found = compute(real, gen, labels)
    assert list(found["kid_intra"]["classes"]) == ["a", "c", "b", "d"]  # falling training pictures
    assert [list(found[f"kid_{group}"]["classes"]) for group in GROUPS] == [["a", "c"], ["b"], ["d"]]
    for name in MEASURES:
        for group in ("intra", *GROUPS):
            entry = found[f"{name}_{group}"]
            values = [c["value"] for c in entry["classes"].values()]
            assert entry["value"] == pytest.approx(sum(values) / len(values))
    entry = found["kid_tail"]["classes"]["d"]
    assert (entry["train"], entry["real"], entry["gen"]) == (10, 40, 40)


def test_a_collapsed_class_is_seen_and_the_others_are_not_touched():
    whole, shrunk = compute(*features()), compute(*features(shrink={2: 0.05}))
    before, after = (found["diversity_intra"]["classes"] for found in (whole, shrunk))
    assert after["d"]["value"] == pytest.approx(0.05 * before["d"]["value"])
    assert before["d"]["value"] == pytest.approx(1, abs=0.15)
    for name in "abc":
        assert after[name] == before[name]
    assert shrunk["kid_tail"]["value"] > whole["kid_tail"]["value"]


def test_diversity_has_next_to_no_bias_from_few_pictures():
    """300 draws of 5 pictures: the mean over draws of the mean distance is that of many pictures."""
    many = mean_distance(_normal(800, 6, 3)).item()
    few = torch.stack([mean_distance(_normal(5, 6, 100 + i)) for i in range(300)])
    assert few.mean().item() == pytest.approx(many, abs=4 * (few.std() / 300**0.5).item())


def test_classes_with_few_pictures_are_left_out():
    real, gen, labels = features()
    few = (labels.real == 2).nonzero().flatten()[4:]
    keep = torch.ones(len(real), dtype=torch.bool)
    keep[few] = False
    labels = Labels(real=labels.real[keep], gen=labels.gen, names=NAMES, train_counts=COUNTS)
    found = compute(real[keep], gen, labels)
    assert list(found["kid_intra"]["classes"]) == ["a", "c", "b"]
    assert "kid_tail" not in found
    with pytest.raises(DataError, match="expected at least 400 "):
        Spec(at_least=400).build().compute(real[keep], gen, labels)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((549, 285, 161, 152, 225, 77, 84, 48, 38), [[0, 1, 4], [2, 3, 6], [5, 7, 8]]),
        ((1, 1, 1, 1), [[0, 1], [2], [3]]),
        ((1, 2), [[1], [0]]),
        ((7,), [[0]]),
    ],
)
def test_thirds_of_the_classes(counts, expected):
    assert list(groups_of(counts).values()) == expected


def test_axes_are_orthonormal_and_those_of_largest_variance():
    x = _normal(500, 4, 0) * torch.tensor([1.0, 5.0, 0.1, 3.0])
    axes = principal_axes(x, 2)
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    assert axes.abs().argmax(0).tolist() == [1, 3]


def test_names_are_those_that_three_classes_give():
    assert set(Spec.names) == set(compute(*features()))


def test_a_set_of_metrics_skips_the_class_wise_ones_without_labels():
    real, gen, labels = features()
    metrics = [Kid().build(), Spec(components=3, at_least=5).build()]
    assert list(measure(metrics, "net", real, gen)) == ["kid_net"]
    assert set(measure(metrics, "net", real, gen, labels=labels)) == {
        "kid_net",
        *(measured_name(n, "net") for n in Spec.names),
    }
    assert measured_name("diversity_tail", "net") == "diversity_tail" and measured_name("fd", "net") == "fd_net"


def test_components_need_pictures():
    with pytest.raises(ConfigError, match="components: got 16, expected fewer than at_least = 10"):
        load_spec("pygan.metrics", {"kind": "intra", "at_least": 10})
