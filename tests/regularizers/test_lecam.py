"""LeCam against hand computations over several steps."""

import pytest
import torch
from torch import nn

from pygan.context import Context, Step
from pygan.losses import OBJECTIVES
from pygan.regularizers.lecam import LeCam, Spec

REAL = [torch.tensor([2.0, 1.0, -1.0]), torch.tensor([3.0, 0.0, 1.5]), torch.tensor([0.5, 2.0, -2.0])]
GEN = [torch.tensor([-1.0, 0.5, -2.0]), torch.tensor([-3.0, 1.0, 4.0]), torch.tensor([0.0, 2.5, -1.0])]


def make_step(number: int, real: torch.Tensor, gen: torch.Tensor, *heads: torch.Tensor) -> Step:
    step = Step(
        phase="D",
        step=number,
        nimg=0,
        G=nn.Identity(),
        D=nn.ModuleList(),
        objective=OBJECTIVES["hinge"],
        index=torch.arange(3),
        seed=0,
    )
    step.real_logits, step.gen_logits = [real, *heads], [gen, *heads]
    return step


def positive(x: float) -> float:
    return max(x, 0.0)


FORMS = {
    "paper": (lambda real, gen_anchor: real - gen_anchor, lambda gen, real_anchor: gen - real_anchor),
    "official": (
        lambda real, gen_anchor: positive(real - gen_anchor),
        lambda gen, real_anchor: positive(real_anchor - gen),
    ),
    "gsr": (
        lambda real, gen_anchor: positive(real - gen_anchor),
        lambda gen, real_anchor: positive(gen - real_anchor),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_three_steps_by_hand(form):
    term = LeCam(weight=0.3, decay=0.9, start_step=0, form=form)
    on_real, on_gen = FORMS[form]
    real_anchor = gen_anchor = 0.0
    values = []
    for number, (real, gen) in enumerate(zip(REAL, GEN, strict=True)):
        real_anchor = 0.9 * real_anchor + 0.1 * sum(real.tolist()) / 3
        gen_anchor = 0.9 * gen_anchor + 0.1 * sum(gen.tolist()) / 3
        expected = sum(on_real(x, gen_anchor) ** 2 for x in real.tolist()) / 3
        expected += sum(on_gen(x, real_anchor) ** 2 for x in gen.tolist()) / 3
        values.append(term(make_step(number, real, gen)).item())
        assert values[-1] == pytest.approx(0.3 * expected)
        assert term.real_anchor.item() == pytest.approx(real_anchor)
        assert term.gen_anchor.item() == pytest.approx(gen_anchor)
    assert len(set(values)) == 3


def test_the_forms_differ_where_the_release_says_they_do():
    """Generated pictures below the real anchor: gSR's second half is silent, the official one is the paper's."""
    real, gen = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([-2.0, -2.0, -2.0])
    values = {}
    for form in FORMS:
        term = LeCam(weight=1.0, decay=0.9, start_step=0, form=form)
        term.real_anchor.fill_(2.0), term.gen_anchor.fill_(-2.0)
        values[form] = term(make_step(0, real, gen)).item()
    assert values == {"paper": 32.0, "official": 32.0, "gsr": 16.0}


def test_before_the_start_the_anchors_are_the_newest_means_and_there_is_no_term():
    term = LeCam(weight=0.3, decay=0.9, start_step=2, form="official")
    for number in (0, 1):
        assert term(make_step(number, REAL[number], GEN[number])).item() == 0
        assert term.real_anchor.item() == REAL[number].mean().item()
        assert term.gen_anchor.item() == GEN[number].mean().item()
    assert term(make_step(2, REAL[2], GEN[2])).item() > 0
    assert term.real_anchor.item() == pytest.approx(0.9 * REAL[1].mean().item() + 0.1 * REAL[2].mean().item())


def test_gradients_are_those_of_the_logits_with_the_anchors_held():
    term = LeCam(weight=0.5, decay=0.9, start_step=0, form="paper")
    real, gen = REAL[0].clone().requires_grad_(), GEN[0].clone().requires_grad_()
    term(make_step(0, real, gen)).backward()
    torch.testing.assert_close(real.grad, 0.5 * 2 / 3 * (REAL[0] - term.gen_anchor))
    torch.testing.assert_close(gen.grad, 0.5 * 2 / 3 * (GEN[0] - term.real_anchor))


def test_other_heads_take_no_part():
    alone, beside = (LeCam(weight=0.3, decay=0.9, start_step=0, form="official") for _ in range(2))
    head = torch.full((2, 3), 50.0)
    assert alone(make_step(0, REAL[0], GEN[0])) == beside(make_step(0, REAL[0], GEN[0], head))
    assert torch.equal(alone.real_anchor, beside.real_anchor)


def test_the_anchors_are_its_state():
    term = Spec(start_step=0).build(Context(resolution=16))
    assert term.state_dict().keys() == {"real_anchor", "gen_anchor"}
    term(make_step(0, REAL[0], GEN[0]))
    other = Spec(start_step=0).build(Context(resolution=16))
    other.load_state_dict(term.state_dict())
    assert other(make_step(1, REAL[1], GEN[1])) == term(make_step(1, REAL[1], GEN[1]))
