"""Reg-DGM against the official formula, and its weight, its records and its state."""

from itertools import pairwise, product

import pytest
import torch
from frozen_look import SIDE, SMALL, Generator, context, make_step, phi, pictures, small_network, to_float
from torch import Tensor, nn

from pygan.context import Context
from pygan.errors import ConfigError, DataError, NumericalError
from pygan.regularizers.frozen_features import squared_mean_distance
from pygan.regularizers.reg_dgm import Spec
from pygan.spec import load_spec


def build(img: Tensor, **settings) -> nn.Module:
    return Spec(**{"network": SMALL, "normalization": "network", "weight": 1.0, **settings}).build(context(img))


def test_the_energies_by_hand() -> None:
    img, G = pictures(), Generator()
    real, gen = phi(to_float(img)), phi(G())
    p_real, p_gen = real.softmax(1), gen.softmax(1)
    expected = {
        "to_mean": ((gen - real.mean(0)) ** 2).mean(),
        "entropy": -(p_gen * p_gen.log()).sum() / len(gen),
        "cross_entropy": -(p_real.mean(0) * p_gen.log()).sum() / len(gen),
    }
    for energy, value in expected.items():
        term = build(img, energy=energy, weight=0.5)
        assert term(make_step(G)).item() == pytest.approx(0.5 * value.item(), rel=1e-5), energy


def test_paired_is_the_official_formula_for_pictures_of_the_training_set() -> None:
    """Mean over batch and features of the squared difference to one real picture per generated one."""
    img, G = pictures(), Generator()
    term, step = build(img, energy="paired"), make_step(G)
    partners = step.draws("reg_dgm/pair").integers(len(img))
    assert len(partners.unique()) > 1
    official = (phi(G()) - phi(to_float(img[partners]))).pow(2).mean()
    assert term(step).item() == pytest.approx(official.item(), rel=1e-5)
    other = make_step(G, number=1)
    assert not torch.equal(other.draws("reg_dgm/pair").integers(len(img)), partners)


def test_identical_pictures_have_no_paired_energy() -> None:
    img = pictures(1)
    G = Generator()
    with torch.no_grad():
        G.img.copy_(to_float(img).expand_as(G.img))
    assert build(img, energy="paired")(make_step(G)).item() == pytest.approx(0, abs=1e-10)


def test_pairing_and_mean_have_the_same_expected_gradient_and_differ_by_the_spread_of_the_reals() -> None:
    """All 3^2 pairings of two generated with three real pictures are enumerated."""
    img, G = pictures(3), Generator(n=2)
    real = phi(to_float(img))
    paired = [(phi(G()) - real[list(pairing)]).pow(2).mean() for pairing in product(range(3), repeat=2)]
    expected = torch.stack(paired).mean()
    (gradient,) = torch.autograd.grad(expected, G.img)
    value = build(img, energy="to_mean")(make_step(G))
    (found,) = torch.autograd.grad(value, G.img)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-7)
    trace = real.var(0, correction=0).sum()
    assert (expected - value).item() == pytest.approx(trace.item() / real.shape[1], rel=1e-4)


@pytest.mark.parametrize("side", [32, 40])
def test_published_preprocessing(side: int) -> None:
    """Moments of the training pixels, no resize but for 32 pixels, whose pixels are repeated 8 times."""
    img = pictures(side=side)
    term = build(img, normalization="training_set", tap="conv4")
    x = to_float(img).double()
    mean, std = x.mean((0, 2, 3)), x.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(term.img_mean.flatten(), mean.float())
    torch.testing.assert_close(term.img_std.flatten(), std.float())
    seen = ((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)).float()
    if side == 32:
        seen = seen.repeat_interleave(8, 2).repeat_interleave(8, 3)
    (maps,) = small_network().at(seen, ("conv4",))
    torch.testing.assert_close(term.real_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_generator_alone_and_the_network_is_not_part_of_the_term() -> None:
    G, term = Generator(), build(pictures())
    step = make_step(G)
    term(step).backward()
    assert G.img.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in step.D.parameters())
    assert not list(term.parameters())
    assert term.state_dict().keys() == {"weight", "gradient_ratio", "real_mean", "real_trace"}
    assert build(pictures(), energy="cross_entropy").state_dict().keys() >= {"real_labels"}
    moments = build(pictures(side=32), normalization="training_set", tap="conv4")
    assert moments.state_dict().keys() >= {"img_mean", "img_std"}


@pytest.mark.parametrize("objective", ["hinge", "non_saturating"])
def test_a_ratio_sets_the_weight_once_and_it_is_kept(objective: str) -> None:
    G = Generator()
    term = build(pictures(), weight=None, ratio=0.25)
    assert term.weight.isnan()
    step = make_step(G, objective=objective)
    value = term(step)
    gen = G()
    loss = -3.0 * gen.mean((1, 2, 3)).mean()
    if objective == "non_saturating":
        loss = nn.functional.softplus(-3.0 * gen.mean((1, 2, 3))).mean()
    (adversarial,) = torch.autograd.grad(loss, G.img)
    (own,) = torch.autograd.grad((phi(G()) - term.real_mean).pow(2).mean(), G.img)
    weight = 0.25 * adversarial.norm() / own.norm()
    assert term.weight.item() == pytest.approx(weight.item(), rel=1e-4)
    assert term.numbers()["gradient_ratio"].item() == pytest.approx(0.25, rel=1e-5)
    (found,) = torch.autograd.grad(value, G.img)
    assert (found.norm() / adversarial.norm()).item() == pytest.approx(0.25, rel=1e-4)
    with torch.no_grad():
        G.img.mul_(0.3)
    before = term.weight.clone()
    term(make_step(G, number=100, objective=objective))
    assert torch.equal(term.weight, before)
    assert term.numbers()["gradient_ratio"].item() != pytest.approx(0.25, rel=1e-3)


def test_the_ratio_of_a_fixed_weight_is_measured_when_it_is_due() -> None:
    G, term = Generator(), build(pictures(), measure_every=3)
    ratios = []
    for number in range(7):
        with torch.no_grad():
            G.img.mul_(0.9)
        term(make_step(G, number))
        ratios.append(term.gradient_ratio.item())
    changes = [a != b for a, b in pairwise(ratios)]
    assert changes == [False, False, True, False, False, True]


def test_what_it_records() -> None:
    img, G = pictures(), Generator()
    term = build(img)
    term(make_step(G))
    real, gen = phi(to_float(img)), phi(G()).detach()
    numbers = {name: float(value) for name, value in term.numbers().items()}
    assert numbers["weight"] == 1
    assert numbers["trace_gen"] == pytest.approx(torch.cov(gen.T).trace().item(), rel=1e-4)
    assert numbers["trace_real"] == pytest.approx(torch.cov(real.T).trace().item(), rel=1e-4)
    pairs = [(gen[i] - real.mean(0)) @ (gen[j] - real.mean(0)) for i in range(4) for j in range(4) if i != j]
    assert numbers["mean_distance"] == pytest.approx(sum(pairs).item() / 12, rel=1e-3)
    assert numbers["mean_distance"] == pytest.approx(squared_mean_distance(gen, real.mean(0)).item())


def test_weight_0_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    term = build(pictures(), weight=0.0)
    monkeypatch.setattr(term, "look", None)
    step = make_step(Generator())
    assert term(step).item() == 0 and not term(step).requires_grad
    assert term.numbers() == {"weight": 0.0}


def test_a_state_brings_weight_and_statistics_back() -> None:
    G, term = Generator(), build(pictures(), weight=None, ratio=0.1)
    term(make_step(G))
    other = build(pictures(seed=3), weight=None, ratio=0.1)
    other.load_state_dict(term.state_dict())
    with torch.no_grad():
        G.img.mul_(0.5)
    assert other(make_step(G, number=7)) == term(make_step(G, number=7))
    assert torch.equal(other.weight, term.weight)


def refused(**settings) -> str:
    with pytest.raises(ConfigError) as found:
        load_spec("pygan.regularizers", {"kind": "reg_dgm", **settings}, "regularizers.0").build(context(pictures()))
    assert str(found.value).count("\n") == 0
    return str(found.value)


def test_bad_settings_are_named_in_a_sentence() -> None:
    network = {"network": SMALL, "normalization": "network"}
    assert refused(weight=-1.0).startswith("regularizers.0.weight: Input should be greater than or equal to 0")
    assert "got weight 1.0 and ratio 0.1, expected one of them" in refused(weight=1.0, ratio=0.1)
    assert "entropy is of class logits" in refused(energy="entropy", tap="pooled")
    assert "has no 'conv9', expected some of conv3, conv4, pooled" in refused(tap="conv9", **network)
    small = refused(network=SMALL)
    assert "mtcnn_onet_random cannot look at pictures of 8 pixels" in small and "normalization: network" in small
    assert "mobilenet_v2" in refused(network={"kind": "mobilenet_v2"})


def test_pictures_that_cannot_be_standardized_and_runs_without_any() -> None:
    img = pictures()
    img[:, 1] = 7
    with pytest.raises(DataError, match="channels of variance"):
        Spec(network=SMALL).build(context(img))
    with pytest.raises(ConfigError, match="looks at the training pictures"):
        Spec(network=SMALL).build(Context(resolution=SIDE))


def test_a_ratio_needs_gradients() -> None:
    term = build(pictures(), weight=None, ratio=0.1)
    step = make_step(Generator())
    step.gen_img = step.gen_img * 0  # the energy no longer depends on G
    with pytest.raises(NumericalError, match="from which `ratio` cannot set a weight"):
        term(step)


def test_a_grey_picture_is_seen_in_three_channels() -> None:
    term = Spec(network=SMALL, normalization="network").build(context(pictures()[:, :1]))
    expected = phi(to_float(pictures()[:, :1].expand(-1, 3, -1, -1))).mean(0)
    torch.testing.assert_close(term.real_mean, expected, rtol=1e-4, atol=1e-5)
