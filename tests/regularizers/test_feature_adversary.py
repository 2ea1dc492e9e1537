"""AdvAug: steps and signs by hand, the exact shift of an affine head, clean loss at no step, buffers on every base."""

import pytest
import torch
from game import BASES, N, buffers, clean_loss, gradients, make_step
from torch import nn

from pygan.context import Context
from pygan.errors import ConfigError
from pygan.regularizers.feature_adversary import Spec, signed_steps
from pygan.regularizers.margin_shift import MarginShift
from pygan.regularizers.perturbed_features import still_buffers
from pygan.spec import load_spec

CTX = Context(resolution=32)


def term(**fields):
    return Spec(**fields).build(CTX)


def head_weight(step):
    """Weight of SNGAN's spectrally normalized last layer as the clean forward used it, `[F]`."""
    with still_buffers(step.D):
        return step.D[0].network.logit.linear.weight.detach()[0]


# Steps


def test_steps_on_a_linear_score_are_its_signs():
    w = torch.tensor([0.5, -2.0, 0.0])
    delta = signed_steps(torch.randn(4, 3), lambda h: (h @ w).sum(), gamma=0.1, steps=3)
    torch.testing.assert_close(delta, 0.3 * torch.tensor([1.0, -1.0, 0.0]).expand(4, 3))


def test_each_step_follows_the_gradient_where_it_stands():
    """score = -(h - 0.15)^2 from 0: up to 0.1, up to 0.2, back to 0.1."""
    ends = [signed_steps(torch.zeros(1, 1), lambda h: -(h - 0.15).square().sum(), 0.1, steps) for steps in (1, 2, 3)]
    torch.testing.assert_close(torch.cat(ends).flatten(), torch.tensor([0.1, 0.2, 0.1]))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_no_random_start_and_no_projection(steps):
    net = nn.Sequential(nn.Linear(6, 1))  # affine: every step has the same sign
    delta = signed_steps(torch.randn(3, 6), lambda h: net(h).sum(), 0.25, steps)
    assert torch.equal(delta.abs(), torch.full((3, 6), 0.25 * steps))
    assert torch.equal(delta, signed_steps(torch.randn(3, 6), lambda h: net(h).sum(), 0.25, steps))


# The exact shift of an affine head


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("direction", ["as_released", "adversarial"])
def test_on_sngan_every_logit_moves_by_gamma_times_the_norm_of_the_weight(steps, direction):
    """Hinge of logits moved by c = steps gamma |w|_1: as released all up, adversarial real down and generated up."""
    step = make_step("D", BASES["sngan"], double=True)
    shift = steps * 0.01 * head_weight(step).abs().sum()
    real = step.real_logits[0] + (shift if direction == "as_released" else -shift)
    expected = step.objective.D(real, step.gen_logits[0] + shift)
    assert shift > 0.01
    value = term(gamma=0.01, steps=steps, direction=direction, sides=("D",))(step)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_the_shift_is_at_most_gamma_times_the_root_of_the_width():
    """A spectrally normalized row has norm 1, so |w|_1 <= sqrt(F): the spec's 0.113 for F = 128, gamma = 0.01."""
    step = make_step("D", {**BASES["sngan"], "d_channels": 128})
    shift = 0.01 * float(head_weight(step).abs().sum())
    assert 0.08 < shift <= 0.01 * 128**0.5 == pytest.approx(0.1131, abs=1e-4)


def test_with_classes_the_shift_is_that_of_weight_plus_embedding():
    step = make_step("D", BASES["sngan"], conditional=True, double=True)
    with still_buffers(step.D):
        logit = step.D[0].network.logit
        real_shift, gen_shift = (
            0.02 * (logit.linear.weight + logit.embed(c)).abs().sum(1) for c in (step.real_c, step.gen_c)
        )
    assert len(set(real_shift.tolist())) > 1
    expected = step.objective.D(step.real_logits[0] - real_shift, step.gen_logits[0] + gen_shift)
    torch.testing.assert_close(term(gamma=0.02, sides=("D",))(step), expected, rtol=1e-12, atol=1e-12)


# Directions


def wasserstein_D(step):
    """Mean logits of real and of generated pictures: D's Wasserstein loss is their difference."""
    return [logits[0].mean().item() for logits in (step.real_logits, step.gen_logits)]


@pytest.mark.parametrize("base", BASES)
def test_adversarial_raises_the_loss_of_the_player_and_released_raises_every_logit(base):
    step = make_step("D", BASES[base], loss="wasserstein")
    clean = clean_loss(step)
    assert term(gamma=0.01, sides=("D",))(step) > clean
    released = term(gamma=0.01, sides=("D",), direction="as_released")(step)
    torch.testing.assert_close(released, clean, rtol=1e-3, atol=1e-4)  # both shifts are the same on an affine head

    step = make_step("G", BASES[base])
    clean = clean_loss(step)  # minus the mean logit
    assert term(gamma=1e-4)(step) > clean
    assert term(gamma=1e-4, direction="as_released")(step) < clean


# Clean loss, gradients, mixing


@pytest.mark.parametrize(("augment", "conditional"), [(None, False), ("diffaug", True)])
@pytest.mark.parametrize("phase", ["D", "G"])
@pytest.mark.parametrize("base", BASES)
def test_no_step_is_the_clean_loss_with_its_gradients_and_moves_no_buffer(base, phase, augment, conditional):
    step = make_step(phase, BASES[base], augment=augment, conditional=conditional)
    before, modes = buffers(step), [m.training for m in nn.ModuleList([step.G, step.D]).modules()]
    value = term(gamma=0.0)(step)
    torch.testing.assert_close(value, clean_loss(step), rtol=1e-5, atol=1e-6)
    ours, clean = gradients(step, value), gradients(step, clean_loss(step))
    largest = max(g.abs().max() for g in clean.values())
    assert largest > 0
    for name, gradient in clean.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=float(1e-5 * largest), msg=name)
    term(gamma=0.1, steps=2)(step)
    after = buffers(step)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert modes == [m.training for m in nn.ModuleList([step.G, step.D]).modules()]


@pytest.mark.parametrize("phase", ["D", "G"])
def test_as_released_the_branch_moves_buffers(phase):
    step = make_step(phase, BASES["sngan"])
    before = buffers(step)
    term(gamma=0.01, update_buffers="as_released")(step)
    after = buffers(step)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({"1"} if phase == "D" else {"0", "1"})  # G is the first of the two, D the second


@pytest.mark.parametrize("phase", ["D", "G"])
def test_the_perturbation_is_a_constant_and_its_branch_reaches_the_first_half(phase):
    """Gradients are those of the loss with the perturbation written down as a number."""
    step = make_step(phase, BASES["dcgan"], loss="non_saturating")
    ours = term(gamma=0.05)
    found = gradients(step, ours(step))
    if phase == "D":
        network = step.D[0].network
        w = network.logit.linear.weight.detach()[0]
        h = network.features(torch.cat([step.real_img, step.gen_img]))
        logits = network.head(h + 0.05 * w.sign() * torch.tensor([-1.0] * N + [1.0] * N)[:, None])
        loss, first = step.objective.D(logits[:N], logits[N:]), "0.network.convs.0.conv.weight"
    else:
        h = step.G.stem(step.gen_z)
        moved = h.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(-step.D[0].network(step.G.body(moved)).sum(), moved)
        loss, first = step.objective.G(step.D[0].network(step.G.body(h + 0.05 * g.sign()))), "linear.weight"
    expected = gradients(step, loss)
    assert expected[first].abs().max() > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("phase", ["D", "G"])
def test_the_other_player_gets_no_gradient(phase):
    step = make_step(phase, BASES["sngan"])
    term(gamma=0.01)(step).backward()
    trained, other = (step.D, step.G) if phase == "D" else (step.G, step.D)
    assert all(p.grad is None for p in other.parameters())
    assert any(p.grad is not None for p in trained.parameters())


@pytest.mark.parametrize("phase", ["D", "G"])
def test_mixing_half_and_half_is_the_released_loss(phase):
    """L + term = (L + w L_adv) / (1 + w)."""
    step = make_step(phase, BASES["dcgan"])
    clean, adversarial = clean_loss(step), term(gamma=0.05)(step)
    for weight in (1.0, 3.0):
        mean = term(gamma=0.05, weight=weight, mixing="mean")(step)
        torch.testing.assert_close(clean + mean, (clean + weight * adversarial) / (1 + weight))
        torch.testing.assert_close(term(gamma=0.05, weight=weight)(step), weight * adversarial)


def test_without_augmentation_of_the_adversarial_picture_D_sees_it_as_it_is():
    step = make_step("G", BASES["dcgan"], augment="diffaug")
    plain = step.objective.G(step.D[0].network(step.gen_img))
    torch.testing.assert_close(term(gamma=0.0, augment_adversarial_g=False)(step), plain)
    assert not torch.isclose(plain, clean_loss(step))


def test_generated_pictures_passed_off_as_real_are_so_in_the_perturbed_branch_too():
    step = make_step("D", BASES["sngan"], augment="apa", conditional=True, double=True)
    plain = make_step("D", BASES["sngan"], conditional=True, double=True)
    assert (step.real_logits[0] != plain.real_logits[0]).any()  # some were replaced
    torch.testing.assert_close(term(gamma=0.0)(step), clean_loss(step))
    shift = MarginShift(epsilon=0.02, shift=None, real_sign=-1.0, weight=1.0, mixing="sum")(step)
    torch.testing.assert_close(term(gamma=0.02, sides=("D",))(step), shift)


def test_one_side_takes_no_part_in_the_other_phase():
    assert term(sides=("G",)).phases == ("G",)
    assert term().phases == ("D", "G")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gamma": -0.01}, "gamma: Input should be greater than or equal to 0"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"sides": ()}, "sides: Tuple should have at least 1 item"),
        ({"direction": "friendly"}, "direction: Input should be 'adversarial' or 'as_released'"),
    ],
)
def test_settings_out_of_range_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        load_spec("pygan.regularizers", {"kind": "feature_adversary"} | fields, "regularizers.0")


def test_in_bfloat16_the_shift_of_D_is_not_rounded_away():
    """Generated minus real logits: adversarial shifts c of both add 2 c."""
    step = make_step("D", BASES["sngan"], loss="wasserstein")
    shift = 0.01 * float(head_weight(step).abs().sum())
    with torch.autocast("cpu", torch.bfloat16):
        near, far = (term(gamma=gamma, sides=("D",))(step).item() for gamma in (0.0, 0.01))
        control = MarginShift(epsilon=0.01, shift=None, real_sign=-1.0, weight=1.0, mixing="sum")(step)
    assert far - near == pytest.approx(2 * shift, rel=1e-3)
    assert control.item() - clean_loss(step).item() == pytest.approx(2 * shift, rel=1e-3)
