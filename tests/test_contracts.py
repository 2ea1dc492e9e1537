"""What every kind must do, whichever it is: build from defaults, repeat itself, move its own side only."""

import importlib
from dataclasses import replace

import pytest
import torch
from linear_style import LinearStyle
from torch import nn

from pygan import augment, diffusion, discriminators, metrics, networks, regularizers
from pygan.context import Context, Step
from pygan.draws import Draws
from pygan.errors import ConfigError
from pygan.losses import OBJECTIVES
from pygan.metrics.base import Labels, Training
from pygan.spec import load_spec

REAL = Draws(0, "real", torch.arange(6)).integers(256, 3, 16, 16).to(torch.uint8)
CTX = Context(resolution=16, pictures=lambda batch: iter(REAL.split(batch)))
CLASSES = replace(CTX, num_classes=3, class_counts=(9, 4, 1))
SMALL = {"z_dim": 8, "g_channels": 4, "d_channels": 4}
FULL_STRENGTH = {"ada": {"p": 1.0}, "apa": {"p": 1.0, "family": "bgc"}}
"""What an augmentation that starts by doing nothing needs to do something."""
LOOK = {"network": {"kind": "mtcnn_onet", "random_init": True}, "normalization": "network"}
SETTINGS = {"reg_dgm": LOOK, "mean_matching": LOOK}
"""What a regularizer that looks through a network needs to do it at 16 pixels and without a file."""


def plain_game() -> tuple[nn.Module, nn.ModuleList]:
    torch.manual_seed(0)
    base = load_spec("pygan.networks", {"kind": "dcgan", **SMALL})
    D = load_spec("pygan.discriminators", {"kind": "plain"}).build(CTX, base.discriminator(CTX), None)
    return base.generator(CTX), nn.ModuleList([D])


def make_step(phase: str, G: nn.Module | None = None) -> Step:
    """A late step, so that every term has started; `G` in place of a small dcgan."""
    base, D = plain_game()
    G = G or base
    step = Step(
        phase=phase, step=10_000, nimg=4, G=G, D=D, objective=OBJECTIVES["hinge"], index=torch.arange(4), seed=0
    )
    step.real_img = torch.rand(4, 3, 16, 16) * 2 - 1
    step.gen_z = step.draws("z").normal(8)
    step.gen_c = torch.tensor([0, 1, 2, 0]) if getattr(G, "num_classes", 0) else None
    step.gen_img = G(step.gen_z, step.gen_c)
    step.gen_logits = D[0](step.gen_img if phase == "G" else step.gen_img.detach(), None, None)
    step.real_logits = D[0](step.real_img, None, None) if phase == "D" else None
    return step


@pytest.mark.parametrize("kind", regularizers.KINDS)
def test_a_regularizer_is_a_finite_scalar_that_moves_its_own_side(kind):
    torch.manual_seed(1)
    spec = load_spec("pygan.regularizers", {"kind": kind} | SETTINGS.get(kind, {}))
    conditional = getattr(spec, "needs_classes", False)
    term = spec.build(CLASSES if conditional else CTX)
    for phase in term.phases:
        G = load_spec("pygan.networks", {"kind": "dcgan", **SMALL}).generator(CLASSES) if conditional else None
        step = make_step(phase, LinearStyle() if kind == "path_length" else G)
        trained, other = (step.D, step.G) if phase == "D" else (step.G, step.D)
        other.requires_grad_(False)
        value = term(step)
        assert value.shape == () and value.isfinite()
        value.backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.parameters())
        assert all(p.grad is None for p in other.parameters())


@pytest.mark.parametrize("kind", augment.KINDS)
def test_an_augmentation_keeps_shapes_and_repeats(kind):
    aug = load_spec("pygan.augment", {"kind": kind} | FULL_STRENGTH.get(kind, {})).build(CTX)
    img = torch.rand(6, 3, 16, 16)
    once, again = (aug(img, Draws(0, "a", torch.arange(6))) for _ in range(2))
    assert once.shape == img.shape and once.isfinite().all()
    assert torch.equal(once, again)
    assert not torch.equal(once, aug(img, Draws(1, "a", torch.arange(6))))


@pytest.mark.parametrize("kind", metrics.KINDS)
def test_a_metric_reports_value_interval_and_protocol(kind):
    metric = load_spec("pygan.metrics", {"kind": kind}).build()
    real, gen, train = (torch.randn(60, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 2))
    given = {
        "labels": Labels.one_class(60, 60),
        "training": Training(features=train, index=torch.arange(60)),
        "classify": nn.Linear(8, 5).requires_grad_(False),
    }
    needed = {name: given[name] for name in getattr(metric, "needs", ())}
    once, again = metric.compute(real, gen, **needed), metric.compute(real, gen, **needed)
    assert once == again
    for result in once.values():
        assert {"value", "interval", "protocol"} <= result.keys()
        assert isinstance(result["protocol"], str)


@pytest.mark.parametrize("kind", diffusion.KINDS)
def test_an_objective_makes_a_denoiser_and_a_loss_that_moves_it(kind):
    spec = load_spec("pygan.diffusion", {"kind": kind, "steps": 2})
    unet = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "attention": []}
    G = spec.generator(load_spec("pygan.networks", unet), CTX)
    img = REAL / 127.5 - 1
    once, again = (spec.build(CTX)(img, Draws(0, "n", torch.arange(6))) for _ in range(2))
    assert once.z.shape == once.target.shape == img.shape and once.sigma.shape == once.weight.shape == (6,)
    assert all(torch.equal(a, b) for a, b in zip(vars(once).values(), vars(again).values(), strict=True))
    losses = once.loss(G.denoiser(once.z, once.sigma))
    assert losses.shape == (6,) and losses.isfinite().all()
    losses.mean().backward()
    assert G.denoiser.network.last.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert G(torch.randn(2, G.z_dim)).shape == (2, 3, 16, 16)


PACKAGES = (augment, diffusion, discriminators, metrics, networks, regularizers)


@pytest.mark.parametrize(("package", "kind"), [(p.__name__, k) for p in PACKAGES for k in p.KINDS])
def test_a_kind_refuses_unknown_keys_by_name(package, kind):
    assert load_spec(package, {"kind": kind}).kind == kind
    with pytest.raises(ConfigError, match=r"slot\.gama"):
        load_spec(package, {"kind": kind, "gama": 1}, "slot")


@pytest.mark.parametrize("package", [p.__name__ for p in PACKAGES])
def test_an_unknown_kind_lists_the_known_ones(package):
    kinds = importlib.import_module(package).KINDS
    with pytest.raises(ConfigError, match=f"slot.kind: got 'nothing', expected one of {', '.join(kinds)}"):
        load_spec(package, {"kind": "nothing"}, "slot")
