"""StyleGAN2 against arrays computed with the public code (where they are at hand), and its own rules."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from minibatch import std_alone
from published import published
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.discriminators.plain import Plain
from pygan.draws import Draws
from pygan.losses import OBJECTIVES
from pygan.networks.stylegan2 import Generator, Spec, Synthesis
from pygan.networks.stylegan2_discriminator import Discriminator, minibatch_std
from pygan.networks.stylegan2_layers import Mapping
from pygan.regularizers import path_length
from pygan.regularizers.r1 import R1

TOLERANCE = 1e-4


def load(module: nn.Module, found: dict[str, Tensor], prefix: str) -> nn.Module:
    module.load_state_dict({key[len(prefix) :]: value for key, value in found.items() if key.startswith(prefix)})
    return module.eval()


def assert_close(got: Tensor, expected: Tensor) -> None:
    scale = expected.abs().max().item()
    torch.testing.assert_close(got.detach(), expected, rtol=0, atol=TOLERANCE * scale)


def generator(architecture: str, num_classes: int, layers: int, clamp: float | None = None) -> Generator:
    sizes = {"channel_base": 192, "channel_max": 24}
    synthesis = Synthesis(32, 32, 3, architecture=architecture, conv_clamp=clamp, **sizes)
    return Generator(synthesis, Mapping(32, num_classes, 32, synthesis.num_ws, layers=layers))


G_CASES = [("skip", "uncond", 0, 8), ("skip", "cond", 4, 2), ("resnet", "uncond", 0, 2), ("orig", "uncond", 0, 2)]


@pytest.mark.parametrize(("architecture", "case", "num_classes", "layers"), G_CASES)
def test_generator_agrees_with_the_public_code(architecture: str, case: str, num_classes: int, layers: int) -> None:
    found = published(f"stylegan2_G_{architecture}_32")
    G = load(generator(architecture, num_classes, layers), found, f"{case}/state/")
    c = found[f"{case}/c"].argmax(1) if num_classes else None
    ws = G.stem(found[f"{case}/z"], c)
    assert_close(ws, found[f"{case}/ws_psi1"])
    assert_close(G.truncate(ws, 0.7), found[f"{case}/ws_psi0.7"])
    assert_close(G.truncate(ws, 0.7, 3), found[f"{case}/ws_psi0.7_cutoff3"])
    ws = ws.detach().requires_grad_()
    img = G.body(ws)
    assert_close(img, found[f"{case}/img_const"])
    names, parameters = zip(*G.synthesis.named_parameters(), strict=True)
    gradients = torch.autograd.grad((img * found[f"{case}/grad_probe"]).sum(), [ws, *parameters])
    assert_close(gradients[0], found[f"{case}/grad/ws"])
    for name, gradient in zip(names, gradients[1:], strict=True):
        if f"{case}/grad/synthesis.{name}" in found:  # recorded for the unconditional networks
            assert_close(gradient, found[f"{case}/grad/synthesis.{name}"])
    if f"{case}/img_const_clamp0.5" in found:
        clamped = load(generator(architecture, num_classes, layers, 0.5), found, f"{case}/state/")
        assert_close(clamped.body(ws), found[f"{case}/img_const_clamp0.5"])


def test_average_of_w_follows_as_in_the_public_code() -> None:
    found = published("stylegan2_G_skip_32")
    G = load(generator("skip", 0, 8), found, "uncond/state/").train()
    G.stem(found["uncond/z"])
    assert_close(G.mapping.w_avg, found["uncond/w_avg_after_one_train_call"])


D_CASES = [
    (architecture, case, num_classes, {})
    for architecture in ("resnet", "orig", "skip")
    for case, num_classes in (("uncond", 0), ("cond", 4))
] + [
    ("orig", "mb2", 0, {"mbstd_channels": 2}),
    ("orig", "mb0", 0, {"mbstd_channels": 0}),
    ("orig", "condmap2", 4, {"mapping_layers": 2}),
]


@pytest.mark.parametrize(("architecture", "case", "num_classes", "options"), D_CASES)
def test_discriminator_agrees_with_the_public_code(
    architecture: str, case: str, num_classes: int, options: dict
) -> None:
    found = published(f"stylegan2_D_{architecture}_32")
    sizes = {"channel_base": 192, "channel_max": 24, "architecture": architecture}

    def build(**more) -> Discriminator:
        return load(Discriminator(num_classes, 32, 3, **sizes, **options, **more), found, f"{case}/state/")

    img = found["img"].requires_grad_()
    c = found[f"{case}/c"].argmax(1) if num_classes else None
    D = build()
    logits = D(img, c)
    assert_close(logits[:, None], found[f"{case}/logits"])
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    assert_close(gradient, found[f"{case}/dlogits_dimg"])
    penalty = gradient.square().sum([1, 2, 3])
    assert_close(penalty, found[f"{case}/r1_penalty"])
    recorded = {key: value for key, value in found.items() if key.startswith(f"{case}/r1_param_grad/")}
    if recorded:  # of the unconditional networks
        names, parameters = zip(*D.named_parameters(), strict=True)
        second = torch.autograd.grad(5 * penalty.mean(), parameters, allow_unused=True)
        largest = max(value.abs().max().item() for value in recorded.values())
        for name, value, parameter in zip(names, second, parameters, strict=True):
            got = torch.zeros_like(parameter) if value is None else value
            expected = recorded[f"{case}/r1_param_grad/{name}"]
            torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE * largest)
    for label, group in (("2", 2), ("None", None), ("32", 32)):
        if f"{case}/logits_group{label}" in found:
            assert_close(build(mbstd_group=group)(img, c)[:, None], found[f"{case}/logits_group{label}"])
    if f"{case}/logits_clamp0.5" in found:
        assert_close(build(conv_clamp=0.5)(img, c)[:, None], found[f"{case}/logits_clamp0.5"])


def game() -> tuple[dict[str, Tensor], Generator, Discriminator]:
    found = published("loss_step_32")
    synthesis = Synthesis(32, 32, 3, channel_base=192, channel_max=24, noise=False)
    G = Generator(synthesis, Mapping(32, 0, 32, synthesis.num_ws, layers=2))
    D = Discriminator(0, 32, 3, channel_base=192, channel_max=24)
    return found, load(G, found, "G/state/").train(), load(D, found, "D/state/").train()


def assert_gradients(loss: Tensor, module: nn.Module, found: dict[str, Tensor], prefix: str) -> None:
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for name, gradient, parameter in zip(names, gradients, parameters, strict=True):
        got = torch.zeros_like(parameter) if gradient is None else gradient
        assert_close(got, found[f"{prefix}/grad/{name}"])


def test_losses_and_their_gradients_agree_with_the_public_code() -> None:
    found, G, D = game()
    objective = OBJECTIVES["non_saturating"]
    img = G(found["z"])
    loss = objective.G(D(img))
    assert_close(loss, found["Gmain/loss_mean"])
    assert_gradients(loss, G, found, "Gmain")
    loss = objective.D(D(found["real_img"]), D(img.detach()))
    assert_gradients(loss, D, found, "Dmain")


def test_r1_agrees_with_the_public_code() -> None:
    found, _, D = game()
    step = Step(
        phase="D",
        step=0,
        nimg=8,
        G=nn.Identity(),
        D=nn.ModuleList([Plain(D)]),
        objective=OBJECTIVES["hinge"],
        index=torch.arange(8),
        seed=0,
    )
    step.real_img = found["real_img"]
    loss = R1(gamma=10, every=16)(step)
    assert_close(loss, found["Dreg/loss_mean"])
    assert_gradients(16 * loss, D, found, "Dreg")


@pytest.mark.parametrize("case", ["Greg", "Greg_plmean3"])
def test_path_length_agrees_with_the_public_code(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, G, _ = game()
    G.style_mixing = 0
    direction = SimpleNamespace(normal=lambda *shape: found[f"{case}/randn_image"])
    monkeypatch.setattr(path_length, "Draws", lambda *args: direction)
    step = Step(
        phase="G",
        step=0,
        nimg=8,
        G=G,
        D=nn.ModuleList(),
        objective=OBJECTIVES["hinge"],
        index=torch.arange(8),
        seed=0,
        gen_z=found["z"],
    )
    term = path_length.PathLength(weight=2, decay=0.01, batch_shrink=2, every=4)
    term.mean.copy_(found[f"{case}/pl_mean_before"])
    loss = term(step)
    assert_close(loss, found[f"{case}/loss_mean"])
    assert_close(term.mean, found[f"{case}/pl_mean_after"])
    if case == "Greg":
        assert_gradients(4 * loss, G, found, case)


class Recorded:
    """Draws that repeat recorded ones."""

    def __init__(self, cut: Tensor, gate: Tensor, z: Tensor) -> None:
        self.integers = lambda high: cut.reshape(1) - 1
        self.uniform = lambda: gate.reshape(1)
        self.normal = lambda *shape: z


@pytest.mark.parametrize("case", ["mix_a", "mix_b", "mix_skipped"])
def test_style_mixing_agrees_with_the_public_code(case: str) -> None:
    found, G, _ = game()
    drawn = (found[f"{case}/{name}"] for name in ("cutoff_draw", "uniform_draw", "z2"))
    ws = G.stem(found["z"], None, Recorded(*drawn))
    assert_close(ws, found[f"{case}/ws"])
    assert_close(G.body(ws), found[f"{case}/img"])


def seeded(module: nn.Module) -> nn.Module:
    """Fill parameters and buffers with numbers that no library version changes."""
    for i, (name, tensor) in enumerate(sorted(module.state_dict().items())):
        drawn = Draws(7, "golden", torch.tensor([i])).normal(tensor.numel()).reshape(tensor.shape)
        slow = "mapping.fc" in name and tensor.dim() == 2  # learns 100 times slower, from weights as much larger
        tensor.copy_(drawn * (100 if slow else 1 if tensor.dim() > 1 else 0.2))
    return module.eval()


GOLDEN = json.loads((Path(__file__).parent / "stylegan2_golden.json").read_text())


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_outputs_stay_what_they_were_when_they_agreed_with_the_public_code(architecture: str) -> None:
    options = {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_layers": 2}
    base = Spec(g_architecture=architecture, d_architecture=architecture, **options)
    ctx = Context(resolution=16, num_classes=3)
    G, D = seeded(base.generator(ctx)), seeded(base.discriminator(ctx))
    z, c = Draws(7, "z", torch.arange(4)).normal(8), torch.tensor([0, 2, 1, 0])
    img = G(z, c)
    numbers = {"img": img[:, :, 5, 7].flatten().tolist(), "logits": D(img, c).tolist()}
    for name, values in numbers.items():
        assert values == pytest.approx(GOLDEN[architecture][name], rel=1e-4, abs=1e-4)


def small() -> tuple[Generator, Discriminator]:
    base = Spec(z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    ctx = Context(resolution=16)
    torch.manual_seed(0)
    return base.generator(ctx), base.discriminator(ctx)


def test_noise_is_constant_without_draws_and_a_function_of_them_with() -> None:
    G, _ = small()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    ws = G.stem(torch.randn(2, 8))
    draws = [Draws(0, stream, torch.arange(2)) for stream in ("a", "a", "b")]
    a, again, b = (G.body(ws, None, d) for d in draws)
    assert torch.equal(G.body(ws), G.body(ws)) and torch.equal(a, again)
    assert not torch.equal(a, b) and not torch.equal(a, G.body(ws))


@pytest.mark.parametrize(
    ("n", "group"), [(16, 32), (8, 32), (4, 8), (2, 4), (1, 4), (6, None), (4, 4), (8, 4), (6, 3), (12, 4)]
)
def test_minibatch_std_of_a_pair_is_that_of_either_kind_alone(n: int, group: int | None) -> None:
    """Both kinds differ in scale, so that a group with samples of both would show."""
    real, generated = (torch.randn(n, 3, 2, 2, dtype=torch.float64) * scale for scale in (1, 10))
    y = minibatch_std(torch.stack([real, generated], 1).flatten(0, 1), group, 1, paired=True)
    for place, x in enumerate((real, generated)):
        assert torch.equal(y[place::2, :3], x)
        torch.testing.assert_close(y[place::2, 3], std_alone(x, group)[:, None, None].expand(-1, 2, 2))
        assert torch.equal(minibatch_std(x, group, 1), y[place::2])


@pytest.mark.parametrize("paired", [False, True])
def test_groups_that_do_not_divide_the_pictures_of_a_kind_are_refused(paired: bool) -> None:
    x = torch.randn(12 if paired else 6, 4, 2, 2)  # 12 pictures would divide into groups of 4, of both kinds
    with pytest.raises(ValueError, match="mbstd_group: got 4, expected a divisor of the 6 pictures computed at a time"):
        minibatch_std(x, 4, 1, paired=paired)


def test_minibatch_std_by_hand() -> None:
    x = torch.randn(6, 4, 2, 2, dtype=torch.float64)
    y = minibatch_std(x, 3, 2)  # groups {0, 2, 4} and {1, 3, 5}; channels {0, 1} and {2, 3}
    assert torch.equal(y[:, :4], x)
    for sample in range(6):
        members = x[sample % 2 :: 2]
        for feature in range(2):
            variance = ((members - members.mean(0)) ** 2).mean(0)[2 * feature : 2 * feature + 2]
            assert torch.allclose(y[sample, 4 + feature], (variance + 1e-8).sqrt().mean())


def test_published_widths() -> None:
    """Parameters of the 256 pixel networks of the paper256 configuration, counted layer by layer."""
    G, D = (
        Spec(channel_base=16384).generator(Context(resolution=256)),
        Spec(channel_base=16384).discriminator(Context(resolution=256)),
    )
    width = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64}

    def layer(a: int, b: int) -> int:
        return 9 * a * b + b + 1 + (512 * a + a)  # weight, bias, noise strength, affine

    expected = 512 * 16 + layer(512, 512) + 8 * (512 * 512 + 512)
    expected += sum(layer(width[r // 2], width[r]) + layer(width[r], width[r]) for r in list(width)[1:])
    expected += sum(3 * w + 3 + 512 * w + w for w in width.values())
    assert sum(p.numel() for p in G.parameters()) == expected
    assert G.synthesis.num_ws == 14
    expected = 3 * 64 + 64 + (513 * 512 * 9 + 512) + (512 * 16 * 512 + 512) + 513
    for r in list(width)[1:]:
        a, b = width[r], width[r // 2]
        expected += 9 * a * a + a + 9 * a * b + b + a * b
    assert sum(p.numel() for p in D.parameters()) == expected


def test_resolution_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="resolution: got 48, expected a power of two"):
        Spec().generator(Context(resolution=48))
