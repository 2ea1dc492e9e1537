"""Objectives against their closed forms."""

import math

import pytest
import torch

from pygan.losses import OBJECTIVES

REAL, GEN = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        ("hinge", (0 + 1) / 2 + (0 + 2) / 2, (2 - 1) / 2),
        (
            "non_saturating",
            (math.log1p(math.exp(-2)) + math.log(2)) / 2 + (math.log1p(math.exp(-2)) + math.log1p(math.e)) / 2,
            (math.log1p(math.exp(2)) + math.log1p(math.exp(-1))) / 2,
        ),
        ("wasserstein", -0.5 - 1, 0.5),
    ],
)
def test_values(name, d, g):
    objective = OBJECTIVES[name]
    assert objective.D(REAL, GEN).item() == pytest.approx(d)
    assert objective.G(GEN).item() == pytest.approx(g)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_head_with_several_outputs_is_averaged(name):
    objective = OBJECTIVES[name]
    assert objective.D(REAL.expand(3, 2), GEN.expand(3, 2)) == objective.D(REAL, GEN)
