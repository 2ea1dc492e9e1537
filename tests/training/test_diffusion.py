"""The loop of denoisers: records, resume, what is learned, and models that load and sample."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pygan
from pygan.checkpoint import read_tensors
from pygan.cli import app
from pygan.context import Context
from pygan.draws import Draws
from pygan.errors import NumericalError, TryAgain
from pygan.export import export
from pygan.sampling import describe, load_generator
from pygan.spec import load_spec
from pygan.training.diffusion import LEVELS, Run, denoising_losses, train, warmup_nimg
from pygan.training.spec import TrainingSpec

BASE = {"kind": "unet", "channels": 4, "multipliers": [1, 2], "blocks": 1, "attention": [], "dropout": 0.2}
LOSS = {"kind": "denoising", "steps": 2}
SPEC = TrainingSpec(
    batch=4, total_nimg=32, snapshots=(0, 16, 32), tick_nimg=8, checkpoint_nimg=8, monitor_images=10, batch_gpu=2
)
N = 6


def tiny_run(*, loss: dict = LOSS, base: dict = BASE, augment: dict | None = None, img=None, **fields) -> Run:
    """A run on six random pictures of 8x8 pixels, in their order."""
    ctx = Context(resolution=8, num_classes=2 if base.get("conditional") else 0)
    torch.manual_seed(0)
    spec = load_spec("pygan.diffusion", loss)
    data = {
        name: Draws(0, name, torch.arange(N)).integers(256, 3, 8, 8).to(torch.uint8) for name in ("train", "validation")
    }
    if img is not None:
        data["train"] = img

    def batch(index):
        rows = index % len(data["train"])
        return data["train"][rows], rows % 2 if ctx.num_classes else None

    defaults = {
        "seed": 0,
        "G": spec.generator(load_spec("pygan.networks", base), ctx),
        "objective": spec.build(ctx),
        "augment": None if augment is None else load_spec("pygan.augment", augment).build(ctx),
        "batch": batch,
        "held_out": lambda index: (data["validation"][index % N], index % 2 if ctx.num_classes else None),
        "gen_labels": lambda draws: draws.integers(2) if ctx.num_classes else None,
        "init": None,
        "init_nimg": 0,
        "metadata": lambda nimg: describe(base, ctx, nimg, loss),
    }
    return Run(**(defaults | fields))


def run_in(path: Path, run: Run | None = None, spec: TrainingSpec = SPEC) -> Path:
    (path / "out").mkdir(parents=True, exist_ok=True)
    train(run or tiny_run(), spec, state_dir=path / "state", out_dir=path / "out")
    return path / "out"


def snapshot(out: Path, nimg: int) -> dict[str, torch.Tensor]:
    return read_tensors(out / "snapshots" / f"{nimg:09d}.safetensors")[0]


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return run_in(tmp_path_factory.mktemp("whole"))


def test_records_of_a_run(whole):
    written = lines(whole)
    assert [line["nimg"] for line in written] == [8, 16, 24, 32]
    assert {"loss/denoiser", "denoising/train", "denoising/validation"} <= written[-1].keys()
    assert sum(key.startswith("denoising/train/") for key in written[-1]) == LEVELS
    assert sorted(path.name for path in (whole / "snapshots").iterdir()) == [
        f"{nimg:09d}.{end}" for nimg in (0, 16, 32) for end in ("png", "safetensors")
    ]


def test_a_training_folder_loads_and_samples(whole):
    model = pygan.load(whole)
    five = model.sample(5, seed=3)
    assert five.shape == (5, 3, 8, 8) and five.dtype == torch.uint8
    assert (five[:2].int() - model.sample(2, seed=3).int()).abs().max() <= 1  # sums round differently
    assert not torch.equal(five, model.sample(5, seed=4))
    assert not torch.equal(five, model.sample(5, seed=3, steps=5))
    assert model.G.steps == 2
    z = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    assert model.denoiser.denoise(z, 0.5).dtype == torch.float64
    assert model.interpolate([0, 1], 2).shape == (4, 3, 8, 8)


def test_the_command_line_samples_with_any_number_of_steps(whole, tmp_path):
    for verb, out in (("generate", "pictures"), ("grid", "grid.png")):
        result = CliRunner().invoke(app, [verb, str(whole), "--out", str(tmp_path / out), "--steps", "3"])
        assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 16
    result = CliRunner().invoke(app, ["grid", str(whole), "--out", str(tmp_path / "grid.png"), "--steps", "1"])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["inspect", str(whole), "--json"])
    assert json.loads(result.output)["base"]["kind"] == "unet"


@pytest.mark.parametrize("format", ["safetensors", "sparse"])
def test_a_denoiser_is_exported(whole, tmp_path, format):
    assert export(pygan.load(whole), tmp_path / "out.safetensors", format).difference == 0


def test_a_state_survives_the_disk(whole):
    tensors = snapshot(whole, 32)
    G = load_generator(whole / "snapshots" / "000000032.safetensors")
    assert all(torch.equal(value, tensors[f"G_ema.{name}"]) for name, value in G.state_dict().items())
    assert {name.split(".")[0] for name in tensors} == {"G", "G_ema", "opt_G"}


EVERYTHING = {
    "loss": {"kind": "chain", "levels": "ddpm", "target": "v", "steps": 2},
    "base": BASE | {"conditional": True},
    "augment": {"kind": "labeled_warp"},
}


@pytest.mark.parametrize("how", [{}, EVERYTHING], ids=["plain", "everything"])
def test_an_interrupted_training_ends_with_the_same_bits(how, tmp_path):
    first = run_in(tmp_path / "whole", tiny_run(**how))
    run = tiny_run(**how)
    batch = run.batch

    def signalling(index):
        if index[0] == 20:
            signal.raise_signal(signal.SIGTERM)
        return batch(index)

    run.batch = signalling
    with pytest.raises(TryAgain, match="stopped by a signal at 24 images"):
        run_in(tmp_path / "parts", run)
    second = run_in(tmp_path / "parts", tiny_run(**how))
    a, b = snapshot(first, 32), snapshot(second, 32)
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]
    for one, other in zip(lines(first), lines(second), strict=True):
        clocks = ("seconds", "img_per_sec")
        assert {k: v for k, v in one.items() if k not in clocks} == {k: v for k, v in other.items() if k not in clocks}


def test_micro_batches_are_the_batch(tmp_path):
    """But for the rounding of sums, which Adam's first steps, of the size of the rate, would magnify: eps is 1."""
    spec = replace(SPEC, adam_eps=1.0, g_lr=1.0, total_nimg=8, snapshots=(8,))
    parts, all_at_once = (
        snapshot(run_in(tmp_path / str(size), tiny_run(), replace(spec, batch_gpu=size)), 8) for size in (2, 4)
    )
    for name, value in parts.items():
        if name.startswith("G."):
            torch.testing.assert_close(value, all_at_once[name], rtol=1e-4, atol=1e-6)


def test_two_pictures_are_learned_by_heart(tmp_path):
    """The loss falls, and the one on the pictures that were trained on falls below that on others."""
    img = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    img[0, :, :4], img[1, :, :, :4] = 255, 255
    budget = {"total_nimg": 1280, "snapshots": (1280,), "tick_nimg": 80, "checkpoint_nimg": 1280}
    spec = replace(SPEC, batch=8, batch_gpu=None, g_lr=1e-2, **budget)
    base = BASE | {"channels": 8, "multipliers": [1], "dropout": 0.0}
    written = lines(run_in(tmp_path, tiny_run(img=img, base=base, loss=LOSS | {"sigma_data": 1.0}), spec))
    first, last = written[0], written[-1]
    assert last["denoising/train"] < 0.5 * first["denoising/train"]
    assert last["denoising/train"] < 0.5 * last["denoising/validation"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    run = tiny_run()
    run.objective.spec = replace(run.objective.spec, log_sigma=(200.0, 1.0))
    with pytest.raises(NumericalError, match=r"loss/denoiser became (inf|nan) at 4 images; what led to it is in"):
        run_in(tmp_path, run, replace(SPEC, snapshots=(32,)))
    assert (tmp_path / "diverged" / "tensors.safetensors").is_file()


def test_the_warmup_is_that_of_edm_but_a_twentieth_of_a_short_run(tmp_path):
    assert warmup_nimg(SPEC) == 32 / 20
    long = replace(SPEC, total_nimg=400_000_000, snapshots=(400_000_000,))
    assert warmup_nimg(long) == 10_000_000
    assert warmup_nimg(replace(SPEC, warmup_kimg=0.5)) == 500
    # Adam's first step is the rate itself wherever there is a gradient: 4 of 40 pictures are a tenth of it
    out = run_in(
        tmp_path, spec=replace(SPEC, total_nimg=4, snapshots=(0, 4), warmup_kimg=0.04, checkpoint_nimg=4, tick_nimg=4)
    )
    name = "G.denoiser.network.last.bias"
    moved = (snapshot(out, 4)[name] - snapshot(out, 0)[name]).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-4), rtol=1e-3, atol=0)


def test_recorded_losses_are_those_of_the_levels_without_dropout():
    run = tiny_run()
    img = torch.rand(10, 3, 8, 8) * 2 - 1

    class Perfect(nn.Module):
        def denoise(self, z, sigma, labels=None):
            return img + 0.1

    found = denoising_losses(Perfect(), run.objective, {"train": (img, None)}, batch=16)
    sigmas = run.objective.spec.sigma((torch.arange(LEVELS) + 0.5) / LEVELS).tolist()
    expected = [0.01 * (s**2 + 0.25) / (s * 0.5) ** 2 for s in sigmas]
    for sigma, value in zip(sigmas, expected, strict=True):
        assert found[f"denoising/train/{sigma:.3g}"] == pytest.approx(value, rel=1e-4)
    assert found["denoising/train"] == pytest.approx((sum(expected) + sum(expected[:2])) / 10, rel=1e-4)
    assert math.isfinite(found["denoising/train"])
