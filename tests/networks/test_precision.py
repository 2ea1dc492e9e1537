"""Every base under autocast in bfloat16, in float16 blocks, and with its feature maps channels last."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pygan.augment.ada import FAMILIES
from pygan.context import Context, Step
from pygan.discriminators.plain import Plain
from pygan.losses import OBJECTIVES
from pygan.networks import KINDS
from pygan.regularizers.path_length import PathLength
from pygan.regularizers.r1 import R1
from pygan.spec import load_spec

NARROW: dict[str, dict[str, Any]] = {
    "dcgan": {"g_channels": 4, "d_channels": 4},
    "sngan": {"g_channels": 8, "d_channels": 8},
    "biggan": {"g_channels": 4, "d_channels": 4, "z_dim": 20, "shared_dim": 4},
    "stylegan2": {"channel_base": 256, "channel_max": 16, "z_dim": 16, "w_dim": 16, "mapping_layers": 2},
}
GANS = [kind for kind in KINDS if hasattr(load_spec("pygan.networks", {"kind": kind}), "discriminator")]
N, CLASSES = 4, 3
ROUNDOFF = 2.0**-8
"""Of bfloat16, 8 bits long: the largest relative error of a number that is rounded."""
LAYERS = (nn.Conv2d, nn.Linear, nn.Embedding)


@dataclass
class Game:
    """Both networks with the data of a step; `loss` is one of its parts."""

    G: nn.Module
    D: nn.Module
    c: Tensor | None
    augment: nn.Module | None = None

    def step(self, phase: str) -> Step:
        D = nn.ModuleList([Plain(self.D, self.augment)])
        objective, index = OBJECTIVES["non_saturating"], torch.arange(N)
        step = Step(phase=phase, step=15, nimg=N, G=self.G, D=D, objective=objective, index=index, seed=0)
        real = step.draws("real").uniform(3, 32, 32) * 2 - 1
        step.real_img = real.contiguous(memory_format=torch.channels_last)
        step.real_c = step.gen_c = self.c
        step.gen_z = step.draws("z").normal(self.G.z_dim)
        return step

    def logits(self, step: Step) -> Tensor:
        step.gen_img = self.G(step.gen_z, step.gen_c, step.draws("synthesis"))
        (logits,) = step.D[0](step.gen_img, step.gen_c, step.draws("augment"))
        return logits

    def layers(self) -> int:
        """How many times numbers are rounded on their way, at the least."""
        modules = [m for network in (self.G, self.D) for m in network.modules()]
        return sum(isinstance(m, LAYERS) or hasattr(m, "weight_gain") or hasattr(m, "affine") for m in modules)


def game(kind: str, conditional: bool = False, **fields: Any) -> Game:
    """Narrow networks for 32 pixels whose biases and noise are not 0, as after some training."""
    spec = load_spec("pygan.networks", {"kind": kind, "conditional": conditional, **NARROW[kind], **fields})
    ctx = Context(resolution=32, num_classes=CLASSES if conditional else 0)
    torch.manual_seed(0)
    G, D = spec.generator(ctx), spec.discriminator(ctx)
    with torch.no_grad():
        for network in (G, D):
            for name, p in network.named_parameters():
                if name.endswith(("bias", "noise_strength")):
                    p += 0.1 * torch.randn_like(p)
    G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    return Game(G, D, torch.arange(N) % CLASSES if conditional else None)


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def all_finite(network: nn.Module) -> bool:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return len(gradients) > 0 and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", GANS)
def test_losses_in_bfloat16_are_those_of_float32_within_rounding(kind: str, conditional: bool) -> None:
    """Errors of the layers are independent: they add up as the root of their number, of which logits bear a few."""
    exact, rounded = game(kind, conditional), game(kind, conditional)
    tolerance = 4 * ROUNDOFF * math.sqrt(2 * exact.layers())  # a layer rounds its weight and its output
    a = exact.logits(exact.step("G"))
    step = rounded.step("G")
    with bfloat16():
        b = rounded.logits(step)
        loss = OBJECTIVES["non_saturating"].G(b)
    assert step.gen_img.dtype == b.dtype == torch.float32  # neither pictures nor logits are rounded
    assert (loss - OBJECTIVES["non_saturating"].G(a)).abs() < tolerance * a.square().mean().sqrt()
    loss.backward()
    assert all_finite(rounded.G) and all_finite(rounded.D)


@pytest.mark.parametrize("conditional", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", GANS)
def test_second_derivatives_in_bfloat16(kind: str, conditional: bool) -> None:
    """R1, whose gradient passes every layer of D twice and is squared; and path length, which does so in G."""
    terms = [("D", R1(gamma=1, every=1))]
    if kind == "stylegan2":
        terms.append(("G", PathLength(weight=2, decay=0.01, batch_shrink=1, every=1)))
    for phase, term in terms:
        exact, rounded = game(kind, conditional), game(kind, conditional)
        a = term(exact.step(phase))
        if isinstance(term, PathLength):
            term.mean.zero_()
        with bfloat16():
            b = term(rounded.step(phase))
        assert (b - a).abs() < 2 * 4 * ROUNDOFF * math.sqrt(4 * exact.layers()) * a
        b.backward()
        assert all_finite(rounded.D if phase == "D" else rounded.G)


@pytest.mark.parametrize("family", ["bgc", "bgcfnc"])
def test_r1_through_the_augmentation_in_bfloat16(family: str) -> None:
    assert family in FAMILIES
    g = game("dcgan")
    g.augment = load_spec("pygan.augment", {"kind": "ada", "p": 1.0, "family": family}).build(Context(resolution=32))
    with bfloat16():
        value = R1(gamma=1, every=1)(g.step("D"))
        value.backward()
        loss = OBJECTIVES["hinge"].G(g.logits(g.step("G")))
        loss.backward()
    assert value.isfinite() and value > 0 and loss.isfinite()
    assert all_finite(g.D) and all_finite(g.G)


def test_autocast_moves_the_singular_vectors_as_float32_does() -> None:
    exact, rounded = game("sngan"), game("sngan")
    img = torch.rand(N, 3, 32, 32)
    exact.D(img)
    with bfloat16():
        rounded.D(img)
    buffers = dict(rounded.D.named_buffers())
    assert len(buffers) > 10
    for name, buffer in exact.D.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="blocks in float16 need a GPU; a CPU computes in float32")
def test_the_highest_resolutions_compute_in_float16_on_a_gpu() -> None:
    exact, half = game("stylegan2"), game("stylegan2", half_resolutions=2, conv_clamp=256.0)
    dtypes: dict[str, torch.dtype] = {}
    for network in (half.G.synthesis, half.D):
        for r in (4, 8, 16, 32):
            block = network.get_submodule(f"b{r}")
            name = f"{type(block).__name__}{r}"

            def note(module: nn.Module, inputs: Any, out: Any, name: str = name) -> None:
                dtypes[name] = (out[0] if isinstance(out, tuple) else out).dtype

            block.register_forward_hook(note)
    z = torch.randn(N, 16, device="cuda")
    images = [g.G.cuda()(z) for g in (exact, half)]
    logits = [g.D.cuda()(images[0].detach()) for g in (exact, half)]
    (images[1].mean() + logits[1].mean()).backward()
    assert {name for name, dtype in dtypes.items() if dtype == torch.float16} == {
        *("SynthesisBlock16", "SynthesisBlock32", "DiscriminatorBlock16", "DiscriminatorBlock32")
    }
    tolerance = 4 * 2.0**-11 * math.sqrt(2 * exact.layers())
    for a, b in (images, logits):
        assert b.dtype == torch.float32
        assert (a - b).square().mean().sqrt() < tolerance * a.square().mean().sqrt()
    assert all_finite(half.G) and all_finite(half.D)


class Convolutions(TorchDispatchMode):
    """Records what convolutions and their gradients read in another format than channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.others: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.count += 1
            maps = args[:1] if function == torch.ops.aten.convolution.default else args[:2]
            free = maps[-1].shape[2] <= 4 or _of_transposed_weights(function, args)
            for x in () if free else maps:
                if not x.is_contiguous(memory_format=torch.channels_last):
                    self.others.append(f"{function} reads {list(x.shape)} with strides {x.stride()}")
        return function(*args, **(kwargs or {}))


def _of_transposed_weights(function: Any, args: Any) -> bool:
    """The weights' gradient of a transposed convolution alone, contiguous on purpose (`conv2d_resample`)."""
    if function != torch.ops.aten.convolution_backward.default:
        return False
    *_, transposed, _, _, mask = args
    return transposed and list(mask) == [False, True, False]


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", GANS)
def test_convolutions_read_channels_last_alone(kind: str, conditional: bool) -> None:
    """In a step of G, which passes every layer forward and backward; maps of 4 x 4 pixels are free."""
    g = game(kind, conditional)
    with Convolutions() as convolutions:
        OBJECTIVES["hinge"].G(g.logits(g.step("G"))).backward()
    assert convolutions.count > 10
    assert convolutions.others == []


@pytest.mark.parametrize("kind", GANS)
def test_a_network_that_was_not_asked_to_stays_contiguous(kind: str) -> None:
    g = game(kind)
    img = g.G.to(memory_format=torch.contiguous_format)(torch.randn(2, g.G.z_dim))
    assert img.is_contiguous()
