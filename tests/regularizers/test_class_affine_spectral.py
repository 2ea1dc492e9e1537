"""The ungrouped control of gSR against singular value decompositions of whole tables."""

import pytest
import torch
from tables import CTX, Tables, step_of

from pygan.context import Context
from pygan.errors import ConfigError
from pygan.regularizers.class_affine_spectral import Spec


def test_value_by_hand():
    G = Tables()
    expected = sum(torch.linalg.svdvals(table.detach())[0].item() for table in G.tables)
    term = Spec(weight=0.7, iterations=20).build(CTX)
    assert term(step_of(G)).item() == pytest.approx(0.7 * expected, rel=1e-4)


def test_gradient_is_u_v():
    G = Tables()
    Spec(weight=1.0, iterations=50).build(CTX)(step_of(G)).backward()
    for table in G.tables:
        U, _, Vh = torch.linalg.svd(table.detach())
        torch.testing.assert_close(table.grad, U[:, :1] * Vh[:1], rtol=1e-3, atol=1e-3)


def test_the_vectors_are_kept_between_steps():
    """After 60 steps with one iteration each, the estimate is as good as one with 60."""
    G = Tables()
    term = Spec(weight=1.0, iterations=1).build(CTX)
    for _ in range(60):
        value = term(step_of(G)).item()
    assert value == pytest.approx(sum(torch.linalg.svdvals(t.detach())[0].item() for t in G.tables), rel=1e-4)
    assert term.state_dict().keys() == {"vectors.u", "vectors.v", "vectors.started"}


def test_no_classes_are_refused():
    with pytest.raises(ConfigError, match="needs labels"):
        Spec().build(Context(resolution=16))
