"""Reg-DGM in the loop: weight 0 is the baseline, a resumed run keeps what was measured, every base takes part."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from tiny import BASE, SPEC, pictures, tiny_run

from pygan.checkpoint import read_tensors
from pygan.context import Context, Step
from pygan.discriminators.plain import Plain
from pygan.losses import OBJECTIVES
from pygan.networks import KINDS
from pygan.spec import load_spec
from pygan.training.game import Run
from pygan.training.gan import train

CTX = Context(resolution=16, pictures=lambda batch: iter(pictures(0, "train").split(batch)))
LOOK = {"network": {"kind": "mtcnn_onet", "random_init": True}, "normalization": "network"}
SHORT = replace(SPEC, total_nimg=32, snapshots=(32,), standing_batches=0)
BASES = {
    "dcgan": BASE,
    "sngan": {"kind": "sngan", "z_dim": 8, "g_channels": 4, "d_channels": 4},
    "stylegan2": {"kind": "stylegan2", "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8},
}


def term(kind: str = "reg_dgm", **settings) -> object:
    return load_spec("pygan.regularizers", {"kind": kind, **LOOK, **settings}).build(CTX)


def r1() -> object:
    return load_spec("pygan.regularizers", {"kind": "r1", "gamma": 1.0, "every": 2}).build(CTX)


def run_in(path: Path, run: Run, spec=SHORT) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The last snapshot and the statistics."""
    (path / "out").mkdir(parents=True, exist_ok=True)
    train(run, spec, state_dir=path / "state", out_dir=path / "out")
    lines = [json.loads(line) for line in (path / "out" / "stats.jsonl").read_text().splitlines()]
    return read_tensors(path / "out" / "snapshots" / f"{spec.total_nimg:09d}.safetensors")[0], lines


def test_weight_0_is_the_baseline_bit_for_bit(tmp_path: Path) -> None:
    baseline, _ = run_in(tmp_path / "baseline", tiny_run(regularizers=[r1()]))
    silent, lines = run_in(tmp_path / "silent", tiny_run(regularizers=[r1(), term(weight=0.0)]))
    assert lines[-1]["loss/G/RegDGM"] == 0 and lines[-1]["RegDGM/weight"] == 0
    assert baseline.keys() == {name for name in silent if not name.startswith("regularizers.RegDGM.")}
    assert not [name for name, tensor in baseline.items() if not torch.equal(tensor, silent[name])]
    active, _ = run_in(tmp_path / "active", tiny_run(regularizers=[r1(), term(weight=1.0)]))
    assert [name for name, tensor in baseline.items() if not torch.equal(tensor, active[name])]


class Interrupted(Exception):
    """The end of a process."""


def test_a_resumed_run_keeps_weight_and_statistics(tmp_path: Path) -> None:
    def run() -> Run:
        return tiny_run(regularizers=[term(energy="paired", ratio=0.2, measure_every=3)])

    whole, lines = run_in(tmp_path / "whole", run())
    assert len({line["RegDGM/weight"] for line in lines}) == 1
    assert lines[0]["RegDGM/gradient_ratio"] == pytest.approx(0.2, rel=1e-5)
    assert lines[-1]["RegDGM/gradient_ratio"] != lines[0]["RegDGM/gradient_ratio"]
    assert {"RegDGM/trace_gen", "RegDGM/trace_real", "RegDGM/mean_distance", "loss/G/RegDGM"} <= lines[0].keys()
    broken = run()
    batch = broken.batch

    def dying(index: torch.Tensor) -> tuple[torch.Tensor, None]:
        if index[0] == 24:
            raise Interrupted
        return batch(index)

    broken.batch = dying
    with pytest.raises(Interrupted):
        run_in(tmp_path / "broken", broken)
    resumed, again = run_in(tmp_path / "broken", run())
    assert whole.keys() == resumed.keys()
    assert not [name for name, tensor in whole.items() if not torch.equal(tensor, resumed[name])]
    timing = ("seconds", "img_per_sec")
    assert [{k: v for k, v in line.items() if k not in timing} for line in lines] == [
        {k: v for k, v in line.items() if k not in timing} for line in again
    ]


@pytest.mark.parametrize(
    "base", ["dcgan", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sngan", "stylegan2"))]
)
def test_it_joins_every_base_beside_other_methods(base: str, tmp_path: Path) -> None:
    """Two steps with masks, an augmentation, a second player, R1, LeCam and the term, weighted by a ratio."""
    spec = replace(SHORT, total_nimg=8, snapshots=(8,))
    lecam = load_spec("pygan.regularizers", {"kind": "lecam", "start_step": 0}).build(CTX)
    terms = [r1(), lecam, term(ratio=0.1), term("mean_matching", ratio=0.1)]
    run = tiny_run(base=BASES[base], sparse=True, extra_head=True, regularizers=terms)
    _, (line,) = run_in(tmp_path, run, spec)
    for name in ("RegDGM", "MeanMatching"):
        assert line[f"{name}/gradient_ratio"] == pytest.approx(0.1, rel=1e-4)
        assert line[f"{name}/weight"] > 0


def test_it_looks_at_biggan_too() -> None:
    """BigGAN has no 16 pixels, so one step by hand."""
    gans = {kind for kind in KINDS if hasattr(load_spec("pygan.networks", {"kind": kind}), "discriminator")}
    assert {*BASES, "biggan"} == gans
    ctx = Context(resolution=32, pictures=CTX.pictures)
    base = load_spec("pygan.networks", {"kind": "biggan", "g_channels": 4, "d_channels": 4})
    G, D = base.generator(ctx), nn.ModuleList([Plain(base.discriminator(ctx))]).requires_grad_(False)
    step = Step(phase="G", step=0, nimg=4, G=G, D=D, objective=OBJECTIVES["hinge"], index=torch.arange(4), seed=0)
    step.gen_img = G(step.draws("z").normal(G.z_dim), None, step.draws("synthesis"))
    step.gen_logits = D[0](step.gen_img, None, None)
    regularizer = load_spec("pygan.regularizers", {"kind": "reg_dgm", **LOOK, "ratio": 0.1}).build(ctx)
    regularizer(step).backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in G.parameters() if parameter.grad is not None)
    assert regularizer.weight > 0
