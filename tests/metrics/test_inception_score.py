"""Classifier score: values that follow from its definition, and those of torch-fidelity."""

import math

import pytest
import torch
from torch import Tensor

from pygan.metrics.inception_score import Spec, scores


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def test_sure_and_even_over_k_classes_is_k() -> None:
    logits = 1000 * torch.eye(7).repeat(3, 1)
    assert scores(logits, 1).tolist() == pytest.approx([7])


def test_unsure_pictures_and_one_class_both_score_one() -> None:
    assert scores(torch.zeros(10, 5), 1).tolist() == pytest.approx([1])
    assert scores(1000 * torch.eye(5)[:1].repeat(10, 1), 1).tolist() == pytest.approx([1])


def test_two_pictures_by_hand() -> None:
    # p = (3/4, 1/4) and (1/4, 3/4), mean (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2)
    logits = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()
    assert scores(logits, 1).item() == pytest.approx(math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5)))


def test_parts_are_consecutive() -> None:
    logits = _normal(30, 6, 0)
    expected = [scores(part, 1).item() for part in logits.split(10)]
    assert scores(logits, 3).tolist() == pytest.approx(expected)


def test_it_equals_torch_fidelity() -> None:
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 2 * _normal(60, 10, 1)
    other = isc.isc_features_to_metric(logits, splits=6, shuffle=False)
    values = scores(logits, 6)
    assert values.mean().item() == pytest.approx(other["inception_score_mean"], rel=1e-6)
    assert values.std(correction=0).item() == pytest.approx(other["inception_score_std"], rel=1e-6)


def test_the_metric_classifies_the_generated_features_alone() -> None:
    weight = _normal(4, 5, 2)
    real, gen = _normal(30, 4, 3), _normal(40, 4, 4)
    metric = Spec(splits=4).build()
    result = metric.compute(real, gen, classify=lambda x: x @ weight)["is"]
    assert result == metric.compute(10 * real, gen.flip(0), classify=lambda x: x @ weight)["is"]
    whole = Spec(splits=1).build().compute(real, gen, classify=lambda x: x @ weight)["is"]
    assert whole["value"] == pytest.approx(scores(gen @ weight, 1).item(), rel=1e-5) and whole["interval"] is None
    low, high = result["interval"]
    assert low < result["value"] < high and "4 parts, 40 generated" in result["protocol"]


def test_too_few_pictures_for_the_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20 pictures for 10 parts, got 19"):
        Spec().build().compute(_normal(30, 4, 0), _normal(19, 4, 1), classify=lambda x: x)
