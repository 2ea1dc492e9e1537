"""Path length of a generator whose Jacobian is known."""

import math

import pytest
import torch
from linear_style import LinearStyle
from torch import nn

from pygan.context import Context, Step
from pygan.draws import Draws
from pygan.errors import ConfigError
from pygan.losses import OBJECTIVES
from pygan.regularizers.path_length import PathLength, Spec, path_lengths
from pygan.spec import load_spec

N = 6


def make_step(G: nn.Module, *, step: int = 3, n: int = N) -> Step:
    index = torch.arange(100, 100 + n)
    made = Step(
        phase="G", step=step, nimg=0, G=G, D=nn.ModuleList(), objective=OBJECTIVES["hinge"], index=index, seed=1
    )
    made.gen_z = made.draws("z").normal(8)
    return made


def lengths_by_hand(G: LinearStyle, n: int) -> torch.Tensor:
    """sqrt of the mean over layers of |A_l^T y|^2, y the step's noise over the root of the number of pixels."""
    draws = Draws(1, "path_length/G", torch.arange(100, 100 + n))
    y = draws.normal(*G.img).flatten(1) / math.sqrt(16 * 16)
    return torch.stack([(y @ A).square().sum(1) for A in G.scale * G.A]).mean(0).sqrt()


@pytest.fixture
def G() -> LinearStyle:
    torch.manual_seed(0)
    return LinearStyle()


def test_two_evaluations_of_a_linear_generator(G):
    term = PathLength(weight=2.0, decay=0.01, batch_shrink=2, every=4)
    lengths = lengths_by_hand(G, N // 2)
    mean = 0.0
    for _ in range(2):
        value = term(make_step(G))
        mean += 0.01 * (lengths.mean() - mean)
        torch.testing.assert_close(value, 2.0 * (lengths - mean).square().mean())
        torch.testing.assert_close(term.mean, mean.detach())
    assert not term.mean.requires_grad


def test_gradient_flows_through_the_newest_share_of_the_mean(G):
    """Lengths are s l for a picture scaled by s, so the derivative at s = 1 is 2 E (l - a)(l - decay E l)."""
    term = PathLength(weight=1.0, decay=0.25, batch_shrink=1, every=4)
    term.mean.fill_(3.0)
    term(make_step(G)).backward()
    length = lengths_by_hand(G, N).detach()
    a = 3.0 + 0.25 * (length.mean() - 3.0)
    torch.testing.assert_close(G.scale.grad, 2 * ((length - a) * (length - 0.25 * length.mean())).mean())


def test_lengths_do_not_depend_on_where_a_linear_generator_stands(G):
    ws = torch.randn(4, 3, 5, requires_grad=True)
    first, second = (path_lengths(w, G.body(w), Draws(0, "y", torch.arange(4))) for w in (ws, 5 * ws))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("shrink", "used"), [(1, 6), (2, 3), (4, 1), (100, 1)])
def test_a_share_of_the_batch_takes_part(G, shrink, used):
    seen = []
    G.mapping.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    PathLength(2.0, 0.01, shrink, 4)(make_step(G))
    assert seen == [used]


def test_labels_and_the_same_draws_reach_stem_and_body(G):
    calls = []

    class Recording(LinearStyle):
        def stem(self, z, c=None, draws=None):
            calls.append((c.tolist(), draws))
            return super().stem(z, c, draws)

        def body(self, ws, c=None, draws=None):
            calls.append((c.tolist(), draws))
            return super().body(ws, c, draws)

    step = make_step(Recording())
    step.gen_c = torch.arange(N)
    PathLength(2.0, 0.01, 2, 4)(step)
    (stem_c, stem_draws), (body_c, body_draws) = calls
    assert stem_c == body_c == [0, 1, 2]
    assert stem_draws is body_draws is not None


def test_published_settings_are_the_defaults():
    spec = Spec()
    assert (spec.weight, spec.decay, spec.batch_shrink, spec.every) == (2.0, 0.01, 2, 4)
    term = spec.build(Context(resolution=16))
    assert term.state_dict() == {"mean": torch.tensor(0.0)}
    assert term.phases == ("G",)


@pytest.mark.parametrize("kind", ["dcgan", "sngan", "biggan"])
def test_a_generator_without_intermediate_latents_is_refused(kind):
    small = {"g_channels": 4, "d_channels": 4, "z_dim": 8}
    G = load_spec("pygan.networks", {"kind": kind, **small}).generator(Context(resolution=32))
    with pytest.raises(ConfigError, match=f"path_length needs a base with .* such as stylegan2, {kind} has none"):
        Spec().build(Context(resolution=32))(make_step(G))
