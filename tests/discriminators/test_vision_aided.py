"""Vision-aided players: shapes, losses, what is trained, what stays frozen, and when they join."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pygan.augment.ada import ADA
from pygan.context import Context
from pygan.discriminators.vision_aided import Spec
from pygan.draws import Draws
from pygan.features.frozen import FrozenNetwork
from pygan.losses import OBJECTIVES
from pygan.spec import parse


class Small(FrozenNetwork):
    """Stands for a network like CLIP: two maps, 5x14x14 and 7x6x6, and a vector of 4."""

    usual_taps = ("a", "b", "v")

    def __init__(self, name="small", taps=None, separable=None):
        super().__init__(name, resolution=16, mean=(127.5,) * 3, std=(127.5,) * 3, taps=taps)
        self.a, self.b, self.v = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 7, 3, 2), nn.Linear(7, 4)
        self.separable = separable
        self.calls = 0
        self.freeze()

    def _walk(self, x):
        self.calls += 1
        x = self.a(x).relu()
        yield "a", x
        x = self.b(x).relu()
        yield "b", x
        yield "v", self.v(x.mean((2, 3)))


def make(frozen=None, *, augment=None, num_classes=0, **values):
    torch.manual_seed(0)
    ctx = Context(resolution=16, frozen=(frozen or Small(),), num_classes=num_classes)
    return Spec(**values).build(ctx, None, augment)


IMG = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_every_network_is_a_player_of_its_own_with_its_own_augmentation():
    ctx = Context(resolution=16, frozen=(Small("one"), Small("two"), Small("three")))
    made = []

    def new_augment():
        made.append(ADA({}))
        return made[-1]

    players = Spec(count=2, width=8).players(ctx, None, new_augment)
    assert [player.heads for player in players] == [("one",), ("two",)]
    assert [player.augment for player in players] == made


def test_own_heads_weigh_as_much_as_the_base_discriminator():
    """One logit per tap, averaged: the hinge loss at logits zero is 2 for D, and 2 for a network."""
    player = make(width=8)
    (logits,) = player(IMG, None, None)
    assert logits.shape == (3, 4)
    (objective,) = player.objectives(OBJECTIVES["hinge"])
    zero = torch.zeros_like(logits)
    assert objective.D(zero, zero) == 2 == OBJECTIVES["hinge"].D(zero[0], zero[0])
    assert torch.equal(objective.G(logits), OBJECTIVES["hinge"].G(logits))


@pytest.mark.parametrize(("smoothing", "target"), [("always", 0.8), ("never", 1.0)])
def test_published_cross_entropy_sums_levels_and_smooths_one_side(smoothing, target):
    player = make(heads="equalized", objective="bce", smoothing=smoothing)
    assert player.head.sizes == (9, 9, 1)  # 14 -> 7 -> 3 and 6 -> 6 -> 3
    (objective,) = player.objectives(OBJECTIVES["hinge"])
    zero = torch.zeros(19, 4)
    assert float(objective.G(zero)) == pytest.approx(3 * math.log(2))  # 2.07944 at any target
    assert float(objective.D(zero, zero)) == pytest.approx(6 * math.log(2))

    real, gen = torch.randn(19, 4), torch.randn(19, 4)

    def official(logits, label):  # per level: cross-entropy, mean over positions; then the sum of the levels
        levels = [F.binary_cross_entropy_with_logits(x, torch.full_like(x, label)) for x in logits.split([9, 9, 1])]
        return sum(levels)

    torch.testing.assert_close(objective.D(real, gen), official(real, target) + official(gen, 0.0))
    torch.testing.assert_close(objective.G(gen), official(gen, target))


def test_the_smoothed_generator_stops_where_the_head_is_as_sure_as_its_target():
    (objective,) = make(heads="equalized", objective="bce", smoothing="always").objectives(OBJECTIVES["hinge"])
    logits = torch.full((19, 4), math.log(0.8 / 0.2), requires_grad=True)  # 1.386
    loss = objective.G(logits)
    loss.backward()
    assert float(loss) == pytest.approx(3 * 0.5004, abs=3e-4)  # H(0.8) per level
    assert logits.grad.abs().max() < 1e-7


def test_published_hinge_sums_levels():
    (objective,) = make(heads="spectral", objective="hinge").objectives(OBJECTIVES["non_saturating"])
    zero = torch.zeros(19, 4)
    assert objective.D(zero, zero) == 6 and objective.G(zero + 1) == -3


@pytest.mark.parametrize(("separable", "target"), [(True, 0.8), (False, 1.0)])
def test_the_probe_decides_about_smoothing(separable, target):
    player = make(Small(separable=separable), heads="equalized", objective="bce")
    (objective,) = player.objectives(OBJECTIVES["hinge"])
    logits = torch.full((19, 4), 2.0)
    expected = 3 * F.binary_cross_entropy_with_logits(torch.tensor(2.0), torch.tensor(target))
    torch.testing.assert_close(objective.G(logits), expected)


def test_without_a_probe_smoothing_has_to_be_said():
    with pytest.raises(ValueError, match="no probe has looked at small, so it is `always` or `never`"):
        make(heads="equalized", objective="bce")


@pytest.mark.parametrize("heads", ["own", "equalized", "spectral"])
def test_only_the_heads_learn(heads):
    frozen = Small()
    player = make(frozen, heads=heads)
    before = [buffer.clone() for buffer in frozen.buffers()]
    assert not any(name.startswith("_frozen") for name, _ in player.named_parameters())
    img = IMG.clone().requires_grad_()
    optimizer = torch.optim.Adam(player.parameters())
    player.train()(img, None, None)[0].square().sum().backward()
    optimizer.step()
    assert img.grad.isfinite().all() and img.grad.abs().sum() > 0
    assert all(p.grad is not None for p in player.parameters())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, frozen.buffers(), strict=True))
    assert not frozen.training


def test_features_of_pictures_without_gradient_are_no_part_of_the_graph():
    player = make(width=8)
    seen = []
    player.head.register_forward_pre_hook(lambda head, inputs: seen.extend(inputs[0]))
    player(IMG, None, None)
    assert all(not tap.requires_grad for tap in seen)


def test_the_network_runs_once_per_forward_and_no_further_than_its_last_tap():
    frozen = Small(taps=("a",))
    player = make(frozen, width=8)
    calls, ran = frozen.calls, []
    frozen.b.register_forward_hook(lambda *args: ran.append(1))
    player(IMG, None, None)
    assert frozen.calls == calls + 1 and not ran


def test_augmentation_is_drawn_for_its_samples_then_half_of_each_side_is_cut():
    player = make(augment=lambda img, draws: torch.ones_like(img) + 0 * draws.uniform(1, 1, 1), cutout=True)
    seen = player.augmented(IMG, Draws(0, "a", torch.arange(4)))
    zeros = (seen == 0).float().mean((1, 2, 3))
    assert ((zeros > 0) & (zeros <= 0.25 + 1e-6)).all()  # 8x8 of 16x16, or what of it is inside
    assert torch.equal(player.augmented(IMG, None), IMG)


def test_the_last_level_drives_the_adaptive_augmentation():
    player = make(heads="equalized", objective="bce", smoothing="always", augment=ADA({}, target=0.3, interval=1))
    logits = torch.cat([-torch.ones(18, 4), torch.ones(1, 4)])
    player.observe([logits])
    assert int(player.augment.sign_sum) == 4 and int(player.augment.sign_count) == 4
    assert player.adapt(0, 100)["p"] > 0


def test_it_may_have_an_augmentation_other_than_the_runs():
    values = {"kind": "vision_aided", "augment": {"kind": "ada", "target": 0.3}}
    player = parse(Spec, values).build(Context(resolution=16, frozen=(Small(),)), None, lambda img, draws: img)
    assert isinstance(player.augment, ADA) and player.augment.target == 0.3


def test_the_warm_up_is_announced_to_the_loop():
    assert make(warmup_nimg=500).warmup_nimg == 500


def test_the_class_projection_needs_classes():
    with pytest.raises(ValueError, match="class_projection: the run has no classes"):
        make(heads="spectral", class_projection=True)
    player = make(heads="spectral", class_projection=True, num_classes=3, width=8)
    c = torch.tensor([0, 1, 2, 0])
    assert not torch.equal(player.eval()(IMG, c, None)[0][-1], player(IMG, c.roll(1), None)[0][-1])


def test_too_few_chosen_networks_are_named():
    ctx = Context(resolution=16, frozen=(Small(),))
    with pytest.raises(ValueError, match=r"discriminators.vision_aided.count: got 2, but 1 were chosen"):
        Spec(count=2).players(ctx, None, lambda: None)


def test_named_networks_need_no_probe():
    values = {"kind": "vision_aided", "width": 4, "networks": [{"kind": "pixels"}]}
    (player,) = parse(Spec, values).players(Context(resolution=16), None, lambda: None)
    assert player.heads == ("pixels",) and player(IMG, None, None)[0].shape == (1, 4)
