"""The loop: masks, continued runs, records, non-finite losses, averages."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from tiny import ADA, APA, SPEC, tiny_run

from pygan.checkpoint import read_tensors, subset
from pygan.errors import ConfigError, NumericalError
from pygan.sampling import load_generator, sample
from pygan.training.ema import Average, standing_statistics
from pygan.training.gan import train
from pygan.training.stats import mean_logits


def run_in(path: Path, run=None, spec=SPEC) -> Path:
    (path / "out").mkdir(parents=True, exist_ok=True)
    train(run or tiny_run(), spec, state_dir=path / "state", out_dir=path / "out")
    return path / "out"


def snapshot(out: Path, nimg: int) -> dict[str, torch.Tensor]:
    return read_tensors(out / "snapshots" / f"{nimg:09d}.safetensors")[0]


def test_records_of_a_run(tmp_path):
    out = run_in(tmp_path)
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == list(range(8, 81, 8))
    assert {"loss/D", "loss/G", "loss/D/R1", "logits/train", "logits/validation", "logits/generated"} <= lines[
        -1
    ].keys()
    assert sorted(path.name for path in (out / "snapshots").iterdir()) == [
        f"{nimg:09d}.{end}" for nimg in (0, 40, 80) for end in ("png", "safetensors")
    ]
    assert Image.open(out / "snapshots" / "000000080.png").size == (8 * 16 * 2, 8 * 16 * 2)
    G = load_generator(out / "snapshots" / "000000080.safetensors")
    torch.testing.assert_close(sample(G, 6, seed=1), torch.cat([sample(G, 6, seed=1, batch=4)]))
    assert len(sorted((tmp_path / "state").iterdir())) == 2


def test_pruned_weights_are_zero_in_every_snapshot(tmp_path):
    run = tiny_run(sparse=True)
    out = run_in(tmp_path, run)
    for nimg in (0, 40, 80):
        tensors = snapshot(out, nimg)
        averaged = {name.replace("G.", "G_ema.", 1): mask for name, mask in run.masks.items() if name.startswith("G.")}
        assert averaged and averaged.keys() < tensors.keys() and len(averaged) < len(run.masks)  # D is pruned too
        for name, mask in (run.masks | averaged).items():
            assert (tensors[name][~mask] == 0).all()
            assert (tensors[name][mask] != 0).all()


@pytest.mark.slow
def test_masks_of_a_spectrally_normalized_D_are_exact_after_an_interruption(tmp_path):
    """The checkpoint at 32 images of a shorter run is continued; whole and continued run end with the same bits."""
    base = {"kind": "sngan", "z_dim": 8, "g_channels": 4, "d_channels": 4}
    run_in(tmp_path / "part", tiny_run(sparse=True, base=base), replace(SPEC, total_nimg=40, snapshots=(0, 40)))
    assert (tmp_path / "part" / "state" / f"{32:012d}").is_dir()
    runs = [tiny_run(sparse=True, base=base) for _ in range(2)]
    whole, rest = (
        snapshot(run_in(tmp_path / name, run), 80) for name, run in zip(("whole", "part"), runs, strict=True)
    )
    for name, tensor in whole.items():
        assert torch.equal(tensor, rest[name]), name
    assert any("parametrizations" in name for name in runs[0].masks)
    for name, mask in runs[0].masks.items():
        assert (rest[name][~mask] == 0).all() and (rest[name][mask] != 0).any()


def test_a_continued_run_repeats_the_longer_one(tmp_path):
    """Stopping at a snapshot and starting another run from it is the same training, networks and optimizers."""
    whole = run_in(tmp_path / "whole")
    tensors = snapshot(whole, 40)
    rest = tiny_run(init=tensors, init_nimg=40)
    out = run_in(tmp_path / "rest", rest, replace(SPEC, snapshots=(40, 80)))
    a, b = snapshot(whole, 80), snapshot(out, 80)
    for name in a:
        if name.startswith(("G.", "D.", "opt_")):
            assert torch.equal(a[name], b[name]), name


def test_a_continued_run_may_add_a_discriminator(tmp_path):
    first = run_in(tmp_path / "first")
    run = tiny_run(init=snapshot(first, 40), init_nimg=40, extra_head=True)
    fresh = {k: v.clone() for k, v in run.D[1].state_dict().items()}
    out = run_in(tmp_path / "second", run, replace(SPEC, snapshots=(40, 80)))
    start = snapshot(out, 40)
    assert all(torch.equal(fresh[k], v) for k, v in subset(start, "D.1.").items())
    assert all(torch.equal(v, snapshot(first, 40)[f"D.0.{k}"]) for k, v in subset(start, "D.0.").items())
    assert not torch.equal(subset(snapshot(out, 80), "D.1.")["network.convs.0.bias"], fresh["network.convs.0.bias"])


def test_a_snapshot_of_another_architecture_is_refused(tmp_path):
    out = run_in(tmp_path / "first")
    other = tiny_run(base={"kind": "dcgan", "z_dim": 8, "g_channels": 8, "d_channels": 4}, init=snapshot(out, 40))
    with pytest.raises(ConfigError, match=r"does not fit G; first differences: "):
        run_in(tmp_path / "second", other)


def test_a_non_finite_loss_stops_the_run_and_is_named(tmp_path):
    run = tiny_run()
    batch = run.batch

    class Poison(nn.Module):
        phases, every = ("G",), 1

        def forward(self, step):
            return step.gen_img.sum() * (math.inf if step.nimg > 40 else 0.0)

    run.regularizers = [Poison()]
    run.batch = batch
    with pytest.raises(NumericalError, match=r"loss/G/Poison became (inf|nan|-inf) at 44 images"):
        run_in(tmp_path, run)
    kept = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert kept == ["000000000016", "000000000032"]


def test_golden_losses_of_ten_steps(tmp_path):
    """A refactoring that should not change numbers must not."""
    out = run_in(tmp_path)
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()][:5]
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    for line, expected in zip(lines, golden, strict=True):
        assert line["loss/D"] == pytest.approx(expected["loss/D"], rel=1e-3)
        assert line["loss/G"] == pytest.approx(expected["loss/G"], rel=1e-3)


def test_an_adaptive_augmentation_sees_real_logits_and_its_p_is_recorded(tmp_path):
    run = tiny_run(augment=ADA | {"target": 0.0})
    signs, observe, adapt = [], run.D[0].augment.observe, run.D[0].augment.adapt
    run.D[0].augment.observe = lambda logits: (signs.append(logits.detach().sign()), observe(logits))
    p, expected = 0.3, []

    def adapt_and_expect(step, nimg):
        nonlocal p
        if (step + 1) % 3 == 0:
            p = max(p + torch.cat(signs).mean().sign().item() * 3 * 4 / 100, 0)
            signs.clear()
        expected.append(p)
        return adapt(step, nimg)

    run.D[0].augment.adapt = adapt_and_expect
    out = run_in(tmp_path, run)
    lines = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    assert [line["augment/0/p"] for line in lines] == pytest.approx(expected[1::2])
    assert len(signs) == 3  # steps 18 and 19, each one batch, and the batch that R1 saw in step 19
    assert all(len(batch) == SPEC.batch for batch in signs)


def test_a_deceived_discriminator_sees_generated_pictures_as_real(tmp_path):
    """At p = 1 both kinds of a batch are the same generated pictures, and no real one reaches the discriminator."""
    run = tiny_run(augment=APA | {"family": None, "p": 1.0, "target": None}, regularizers=[])
    seen, network = [], run.D[0].network
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    run_in(tmp_path, run)
    batches = [img for img in seen if len(img) == 2 * SPEC.batch]
    assert len(batches) == SPEC.total_nimg // SPEC.batch
    for img in batches:
        assert torch.equal(img[0::2], img[1::2])


def test_average_has_the_stated_half_life():
    G = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(G.weight)
    average = Average(G, halflife_nimg=1000, rampup=None)
    nn.init.ones_(G.weight)
    for _ in range(10):
        average.update(G, nimg=10**6, batch=100)
    assert average.G.weight.item() == pytest.approx(0.5)


def test_average_ramps_up():
    G = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(G.weight)
    average = Average(G, halflife_nimg=1000, rampup=0.1)
    nn.init.ones_(G.weight)
    average.update(G, nimg=100, batch=10)  # half-life 0.1 * 100 = 10 pictures = this batch
    assert average.G.weight.item() == pytest.approx(0.5)


def test_standing_statistics_are_the_mean_over_batches():
    G = nn.Sequential(nn.BatchNorm2d(1, affine=False))
    G.forward = lambda x, c: G[0](x)
    z = torch.randn(6, 1, 2, 2)
    ready = standing_statistics(_Norm(), z, None, batches=3)
    parts = z.chunk(3)
    torch.testing.assert_close(ready.norm.running_mean, torch.stack([p.mean() for p in parts]).mean()[None])
    torch.testing.assert_close(ready.norm.running_var, torch.stack([p.var() for p in parts]).mean()[None])
    assert not ready.training


class _Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)

    def forward(self, x, c):
        return self.norm(x)


def test_logits_of_the_monitored_sets_are_means_over_their_pictures():
    D = tiny_run(extra_head=True).D
    sets = {"train": (torch.randn(4, 3, 16, 16), None), "validation": (torch.randn(3, 3, 16, 16), None)}
    logits = mean_logits(D, sets)
    assert logits["logits/train"] == pytest.approx(D[0].network(sets["train"][0], None).mean().item(), abs=1e-6)
    head = D[1].network(sets["validation"][0], None).mean().item()
    assert logits["head/D/validation"] == pytest.approx(head, abs=1e-6)
    assert D.training
