"""The L2 control of gSR: its value by hand, and that it starts where gSR starts."""

import pytest
import torch
from tables import CTX, Tables, step_of

from pygan.regularizers import class_affine_l2, group_spectral
from pygan.regularizers.class_tables import class_weights


def test_value_by_hand():
    """Two layers, three classes: the weighted squared lengths, divided by 2 x 3."""
    G = Tables()
    weights = class_weights(CTX, "effective_number", 0.9)
    lengths = sum(table.detach().square().sum(1) for table in G.tables)
    term = class_affine_l2.Spec(weight=0.7, beta=0.9, scale=0.5).build(CTX)
    assert term(step_of(G)).item() == pytest.approx(0.7 * 0.5 * (weights * lengths).sum().item() / 6)


def test_it_starts_with_the_value_of_gsr():
    G = Tables()
    fields = {"weight": 0.7, "beta": 0.9}
    spectral = group_spectral.Spec(**fields, sigma="svd").build(CTX)(step_of(G))
    term = class_affine_l2.Spec(**fields).build(CTX)
    torch.testing.assert_close(term(step_of(G)), spectral)
    assert 0 < term.scale < 1
    with torch.no_grad():
        for table in G.tables:
            table.mul_(3)
    torch.testing.assert_close(term(step_of(G)), 9 * spectral)  # the scale stays


def test_all_directions_shrink_alike():
    """The gradient is along the vectors, where that of gSR is along their leading pattern."""
    G = Tables()
    class_affine_l2.Spec(class_weights="uniform", scale=1.0).build(CTX)(step_of(G)).backward()
    for table in G.tables:
        torch.testing.assert_close(table.grad, 2 * 0.5 * table.detach() / 6)


def test_the_scale_is_part_of_the_state():
    term = class_affine_l2.Spec().build(CTX)
    term.attach(Tables())
    other = class_affine_l2.Spec().build(CTX)
    other.attach(Tables(seed=1))
    assert other.scale != term.scale
    other.load_state_dict(term.state_dict())
    assert other.scale == term.scale
