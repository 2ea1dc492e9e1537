"""gSR against singular value decompositions, the published groupings and starting values, and the loop."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tables import CTX, Tables, step_of
from tiny import SPEC, pictures, tiny_run

from pygan.checkpoint import read_tensors
from pygan.context import Context
from pygan.draws import Draws
from pygan.errors import ConfigError, TryAgain
from pygan.networks.layers import ConditionalBatchNorm, ModulatedBatchNorm, class_affines
from pygan.regularizers.class_tables import class_tables
from pygan.regularizers.group_spectral import GroupSpectral, Spec, number_of_groups
from pygan.spec import load_spec
from pygan.training.gan import train

WEIGHTS = torch.tensor([0.2, 0.8, 2.0])


def term_of(**fields) -> GroupSpectral:
    return GroupSpectral(Spec(**fields), WEIGHTS, CTX)


def expected_sigma(G: Tables, groups: tuple[int, int] = (3, 2)) -> torch.Tensor:
    """Layers and sides by class: largest singular values of the vectors cut into rows."""
    shapes = [*groups, *groups]
    return torch.stack(
        [torch.linalg.svdvals(table.view(3, n, -1))[:, 0] for table, n in zip(G.tables, shapes, strict=True)]
    )


@pytest.mark.parametrize(
    ("channels", "shape"),
    [
        (256, (16, 16)),
        (384, (16, 24)),
        (512, (16, 32)),
        (128, (8, 16)),
        (160, (10, 16)),
        (640, (20, 32)),
        (320, (16, 20)),
        (1280, (32, 40)),
        (7, (1, 7)),
        (1, (1, 1)),
    ],
)
def test_groupings(channels, shape):
    groups = number_of_groups(channels)
    assert (groups, channels // groups) == shape


def test_value_by_hand():
    """Two layers and three classes: the mean divides the sum over both sides by 2 x 3."""
    G = Tables()
    total = (WEIGHTS * expected_sigma(G).square()).sum().item()
    for fields, expected in (
        ({"reduction": "sum"}, 0.7 * total),
        ({"reduction": "mean"}, 0.7 * total / 6),
        ({"reduction": "mean", "sigma": "svd"}, 0.7 * total / 6),
    ):
        term = term_of(weight=0.7, iterations=20, **fields)
        assert term(step_of(G)).item() == pytest.approx(expected, rel=1e-4)


def test_one_group_is_the_squared_length():
    G = Tables()
    lengths = torch.stack([table.square().sum(1) for table in G.tables])
    value = term_of(weight=1.0, groups=1, reduction="sum")(step_of(G)).item()
    assert value == pytest.approx((WEIGHTS * lengths).sum().item(), rel=1e-5)


def test_other_groups_and_what_does_not_divide():
    G = Tables()
    value = term_of(weight=1.0, groups=4, reduction="sum", sigma="svd")(step_of(G)).item()
    assert value == pytest.approx((WEIGHTS * expected_sigma(G, (4, 4)).square()).sum().item(), rel=1e-5)
    with pytest.raises(ConfigError, match="groups is 3, expected a divisor of the 8 channels"):
        term_of(groups=3).attach(G)


@pytest.mark.parametrize("sigma", ["power", "svd"])
def test_gradient_is_two_sigma_u_v(sigma):
    """d sigma^2 / dE = 2 sigma u v^T, weighted by class; u and v from a full decomposition."""
    G = Tables()
    term_of(weight=1.0, reduction="sum", sigma=sigma, iterations=30)(step_of(G)).backward()
    for table, groups in zip(G.tables, (3, 2, 3, 2), strict=True):
        U, S, Vh = torch.linalg.svd(table.detach().view(3, groups, -1))
        expected = (2 * WEIGHTS * S[:, 0])[:, None, None] * U[:, :, :1] * Vh[:, :1]
        torch.testing.assert_close(table.grad, expected.flatten(1), rtol=1e-3, atol=1e-3)


def test_the_order_of_classes_does_not_matter():
    G, other = Tables(), Tables()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for table in other.tables:
            table.copy_(table[order])
    a = term_of(sigma="svd")(step_of(G))
    b = GroupSpectral(Spec(sigma="svd"), WEIGHTS[order], CTX)(step_of(other))
    torch.testing.assert_close(a, b)


class Random(nn.Module):
    """Many classes with one layer of random gains and biases."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.gain, self.bias = (nn.Parameter(torch.randn(classes, channels, generator=generator)) for _ in range(2))

    def class_affines(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(1 + self.gain, self.bias)]


@pytest.mark.parametrize("channels", [256, 384])
def test_the_released_bias_branch_is_a_quarter_too_low(channels):
    """Its u is the bias times the v of an independent gain; a random direction keeps about 0.74 of sigma."""
    classes = 300
    ctx = Context(resolution=32, num_classes=classes, class_counts=(1,) * classes)
    G = Random(classes, channels)
    n = number_of_groups(channels)
    ratios = {}
    for branch in ("correct", "as_released"):
        term = GroupSpectral(Spec(bias_branch=branch, iterations=20), torch.ones(classes), ctx)
        term.attach(G)
        for _ in range(3):
            sigma = term._sigma(term._matrices(class_tables(G), 0))
        for name, found, table in zip(("gain", "bias"), sigma, (G.gain, G.bias), strict=True):
            ratios[branch, name] = found.detach() / torch.linalg.svdvals(table.detach().view(classes, n, -1))[:, 0]
    for case in (("correct", "gain"), ("correct", "bias"), ("as_released", "gain")):
        assert ratios[case].mean().item() == pytest.approx(1, abs=0.01)
    assert ratios["as_released", "bias"].mean().item() == pytest.approx(0.74, abs=0.02)


def test_the_released_bias_branch_step_by_step():
    """One layer, two iterations, written out as the release has it."""
    G = Tables()
    term = term_of(weight=1.0, reduction="sum", iterations=2, bias_branch="as_released")
    term.attach(G)
    term.vectors.started.fill_(True)
    us, _ = (list(map(torch.clone, vectors)) for vectors in term.vectors.vectors())
    total = torch.zeros([])

    def unit(x):
        return x / x.norm(dim=1, keepdim=True)

    for layer, groups in ((0, 3), (1, 2)):
        E0, E1 = (G.tables[i].detach().view(3, groups, -1) for i in (layer, layer + 2))
        u0, u1 = us[layer], us[layer + 2]
        for _ in range(2):
            v0 = unit(torch.einsum("chw,ch->cw", E0, u0))
            u0 = unit(torch.einsum("chw,cw->ch", E0, v0))
            v1 = unit(torch.einsum("chw,ch->cw", E1, u1))
            u1 = unit(torch.einsum("chw,cw->ch", E1, v0))
        for E, u, v in ((E0, u0, v0), (E1, u1, v1)):
            total += (WEIGHTS * torch.einsum("chw,ch,cw->c", E, u, v).square()).sum()
    assert term(step_of(G)).item() == pytest.approx(total.item(), rel=1e-5)


def test_shuffling_deals_the_channels_anew_in_every_step():
    G = Tables()
    term = term_of(shuffle=True, sigma="svd")
    values = [term(step_of(G, number)).item() for number in (0, 1, 0)]
    assert values[0] == values[2] != values[1]
    groups_of_one = term_of(shuffle=True, sigma="svd", groups=1)
    values = [groups_of_one(step_of(G, number)).item() for number in (0, 1)]
    assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize("branch", ["correct", "as_released"])
def test_autocast_changes_nothing(branch):
    values, gradients = [], []
    for dtype in (None, torch.bfloat16):
        G = Tables()
        term = term_of(bias_branch=branch)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            values.append(term(step_of(G)))
        values[-1].backward()
        gradients.append([table.grad for table in G.tables])
    assert torch.equal(*values)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# Starting values: means over random orthogonal initializations


def mean_sigma(tables: list[torch.Tensor], groups: int) -> float:
    return torch.stack([torch.linalg.svdvals(t.unflatten(1, (groups, -1)))[:, 0] for t in tables]).mean().item()


@torch.no_grad()
def test_sngan_starts_at_0_463():
    torch.manual_seed(0)
    norms = nn.ModuleList(ConditionalBatchNorm(256, 10, init=nn.init.orthogonal_) for _ in range(12))
    affines = class_affines(norms, torch.arange(10))
    assert mean_sigma([gain - 1 for gain, _ in affines] + [bias for _, bias in affines], 16) == pytest.approx(
        0.463, abs=0.01
    )


@torch.no_grad()
def test_biggan_starts_at_0_426():
    """128 numbers of the shared embedding and a chunk of z, which is 0 for the class's own part."""
    torch.manual_seed(0)
    tables = []
    for _ in range(4):
        norms = nn.ModuleList(
            ModulatedBatchNorm(384, 148, eps=1e-4, sn_eps=1e-6, init=nn.init.orthogonal_) for _ in range(2)
        )
        shared = nn.init.orthogonal_(torch.empty(10, 128))
        affines = class_affines(norms, nn.functional.pad(shared, (0, 20)))
        tables += [gain - 1 for gain, _ in affines] + [bias for _, bias in affines]
    assert mean_sigma(tables, 16) == pytest.approx(0.426, abs=0.01)


# In the loop

SHORT = replace(SPEC, total_nimg=24, snapshots=(24,), checkpoint_nimg=12, standing_batches=1)
BASE = {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4, "conditional": True}
BIGGAN = {"kind": "biggan", "z_dim": 8, "g_channels": 1, "d_channels": 1, "shared_dim": 4, "g_attention": 0}


def conditional_run(values: dict | None, base: dict = BASE, resolution: int = 16, **fields):
    """The tiny run with three classes and, where `values` are given, the term."""
    ctx = Context(resolution=resolution, num_classes=3, class_counts=CTX.class_counts)
    torch.manual_seed(0)
    network = load_spec("pygan.networks", base)
    G = network.generator(ctx)
    plain = load_spec("pygan.discriminators", {"kind": "plain"})
    D = nn.ModuleList([plain.build(ctx, network.discriminator(ctx), None)])
    terms = [] if values is None else [load_spec("pygan.regularizers", values).build(ctx)]
    for term in terms:
        term.attach(G)
    labels = torch.arange(10) % 3
    img = pictures(0, "train").repeat_interleave(resolution // 16, 2).repeat_interleave(resolution // 16, 3)
    return tiny_run(
        G=G,
        D=D,
        regularizers=terms,
        base=BASE,
        batch=lambda index: (img[index % 10], labels[index % 10]),
        held_out=lambda index: (img[index % 10], labels[index % 10]),
        gen_labels=lambda draws: draws.integers(3),
        **fields,
    )


def last(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / "snapshots" / f"{SHORT.total_nimg:09d}.safetensors")[0]


def trained(path: Path, run) -> Path:
    (path / "out").mkdir(parents=True, exist_ok=True)
    train(run, SHORT, state_dir=path / "state", out_dir=path / "out")
    return path / "out"


@pytest.mark.parametrize("kind", ["group_spectral", "class_affine_l2", "class_affine_spectral"])
def test_a_resumed_run_is_bit_equal(tmp_path, kind):
    """The vectors of the power iteration, and the scale of the control, are part of the checkpoint."""
    whole = last(trained(tmp_path / "whole", conditional_run({"kind": kind})))
    run, stops = conditional_run({"kind": kind}), []
    batch = run.batch

    def stopping(index):
        if index[0] == 16 and not stops:
            stops.append(1)
            raise TryAgain("a power cut")
        return batch(index)

    run.batch = stopping
    with pytest.raises(TryAgain):
        trained(tmp_path / "cut", run)
    rest = last(trained(tmp_path / "cut", conditional_run({"kind": kind})))
    assert whole.keys() == rest.keys()
    assert any(name.startswith("regularizers.") for name in whole)
    assert not [name for name in whole if not torch.equal(whole[name], rest[name])]


@pytest.mark.parametrize(
    ("base", "resolution"), [(BASE, 16), pytest.param(BIGGAN, 32, marks=pytest.mark.slow)], ids=["dcgan", "biggan"]
)
def test_weight_zero_reports_and_changes_nothing(tmp_path, base, resolution):
    """Not even the power iterations inside BigGAN's own layers."""
    plain = trained(tmp_path / "plain", conditional_run(None, base, resolution))
    silent = trained(tmp_path / "silent", conditional_run({"kind": "group_spectral", "weight": 0}, base, resolution))
    a, b = last(plain), last(silent)
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]
    line = json.loads((silent / "stats.jsonl").read_text().splitlines()[-1])
    found = {name for name in line if name.startswith("GroupSpectral/")}
    assert found == {f"GroupSpectral/{name}/{c}" for name in ("gain", "bias", "max") for c in range(3)}


def test_the_term_lowers_what_it_measures(tmp_path):
    lines = {}
    for weight in (0, 30.0):
        out = trained(tmp_path / str(weight), conditional_run({"kind": "group_spectral", "weight": weight}))
        lines[weight] = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    for name in ("gain", "bias"):
        for c in range(3):
            assert lines[30.0][f"GroupSpectral/{name}/{c}"] < lines[0][f"GroupSpectral/{name}/{c}"]


def test_numbers_are_exact_means_over_layers():
    G = Tables()
    term = term_of(weight=0)
    assert term.numbers() == {}
    assert term(step_of(G)).item() == 0
    sigma = expected_sigma(G)
    numbers = term.numbers()
    for c in range(3):
        assert numbers[f"gain/{c}"].item() == pytest.approx(sigma[:2, c].mean().item())
        assert numbers[f"bias/{c}"].item() == pytest.approx(sigma[2:, c].mean().item())
        assert numbers[f"max/{c}"].item() == pytest.approx(sigma[:, c].max().item())


def test_of_many_classes_the_rarest_are_reported():
    counts = tuple(range(1, 31))
    ctx = Context(resolution=32, num_classes=30, class_counts=counts)
    term = GroupSpectral(Spec(weight=0), torch.ones(30), ctx)
    term.attach(Random(30, 16))
    assert {name for name in term.numbers() if name.startswith("max")} == {f"max/{c}" for c in range(20)}


def test_what_does_not_fit_is_refused():
    unconditional = load_spec("pygan.networks", {"kind": "dcgan"}).generator(Context(resolution=16))
    with pytest.raises(ConfigError, match="this dcgan has no such normalization"):
        term_of().attach(unconditional)
    four = Random(4, 16)
    with pytest.raises(ConfigError, match="the generator has 4 classes, expected the data's 3"):
        term_of().attach(four)


def test_stylegan2_has_a_bias_by_class():
    """The class's share of the first layer of the mapping; what it adds to a w of no latent."""
    ctx = Context(resolution=16, num_classes=3, class_counts=CTX.class_counts)
    torch.manual_seed(0)
    values = {"kind": "stylegan2", "z_dim": 16, "w_dim": 16, "channel_base": 64, "channel_max": 8, "conditional": True}
    G = load_spec("pygan.networks", values).generator(ctx)
    ((gain, bias),) = G.class_affines()
    assert torch.equal(gain, torch.ones(3, 16)) and bias.shape == (3, 16)
    first, inputs = G.mapping.fc0, []
    first.register_forward_hook(lambda module, args, out: inputs.append(args[0]))
    z = Draws(0, "z", torch.arange(3)).normal(16)
    G.mapping(z, torch.arange(3))
    part = inputs[0].clone()
    part[:, :16] = 0  # the latent's share
    torch.testing.assert_close(bias, part @ (first.weight * first.weight_gain).T)
    term = load_spec("pygan.regularizers", {"kind": "group_spectral"}).build(ctx)
    term(step_of(G)).backward()
    assert G.mapping.embed.weight.grad.abs().sum() > 0 and first.weight.grad.abs().sum() > 0
    unconditional = load_spec("pygan.networks", values | {"conditional": False}).generator(Context(resolution=16))
    assert unconditional.class_affines() == []
