"""Reg-DGM in the loop: weight 0 is the baseline, a resumed run keeps what was measured, every base takes part."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny import BASE, SPEC, pictures, tiny_run

from pygan.checkpoint import read_tensors
from pygan.context import Context
from pygan.networks import KINDS
from pygan.spec import load_spec
from pygan.training.gan import Run, train

CTX = Context(resolution=16, pictures=lambda batch: iter(pictures(0, "train").split(batch)))
LOOK = {"network": {"kind": "mtcnn_onet", "random_init": True}, "normalization": "network"}
BASES = {
    "dcgan": BASE,
    "sngan": {"kind": "sngan", "z_dim": 8, "g_channels": 4, "d_channels": 4},
    "biggan": {"kind": "biggan", "z_dim": 20, "g_channels": 4, "d_channels": 4},
    "stylegan2": {"kind": "stylegan2", "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8},
}


def term(kind: str = "reg_dgm", **settings) -> object:
    return load_spec("pygan.regularizers", {"kind": kind, **LOOK, **settings}).build(CTX)


def r1() -> object:
    return load_spec("pygan.regularizers", {"kind": "r1", "gamma": 1.0, "every": 2}).build(CTX)


def run_in(path: Path, run: Run, spec=SPEC) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
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
        return tiny_run(regularizers=[term(energy="paired", ratio=0.2, measure_every=7)])

    whole, lines = run_in(tmp_path / "whole", run())
    assert len({line["RegDGM/weight"] for line in lines}) == 1
    assert lines[0]["RegDGM/gradient_ratio"] == pytest.approx(0.2, rel=1e-5)
    assert lines[-1]["RegDGM/gradient_ratio"] != lines[0]["RegDGM/gradient_ratio"]
    assert {"RegDGM/trace_gen", "RegDGM/trace_real", "RegDGM/mean_distance", "loss/G/RegDGM"} <= lines[0].keys()
    broken = run()
    batch = broken.batch

    def dying(index: torch.Tensor) -> tuple[torch.Tensor, None]:
        if index[0] == 56:
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


@pytest.mark.parametrize("base", KINDS)
def test_it_joins_every_base_beside_other_methods(base: str, tmp_path: Path) -> None:
    """Two steps with masks, an augmentation, a second player, R1, LeCam and the term, weighted by a ratio."""
    spec = replace(SPEC, total_nimg=8, snapshots=(8,), standing_batches=0)
    lecam = load_spec("pygan.regularizers", {"kind": "lecam", "start_step": 0}).build(CTX)
    terms = [r1(), lecam, term(ratio=0.1), term("mean_matching", ratio=0.1)]
    run = tiny_run(base=BASES[base], sparse=True, extra_head=True, regularizers=terms)
    _, (line,) = run_in(tmp_path, run, spec)
    for name in ("RegDGM", "MeanMatching"):
        assert line[f"{name}/gradient_ratio"] == pytest.approx(0.1, rel=1e-4)
        assert line[f"{name}/weight"] > 0
