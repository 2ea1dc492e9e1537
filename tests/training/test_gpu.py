"""The training loop on a GPU: precisions, interruption, divergence and torch.compile."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny import BASE, SPEC, tiny_run

from pygan.checkpoint import read_tensors
from pygan.errors import NumericalError, TryAgain
from pygan.training.gan import Run, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="trains on a GPU, and there is none"),
]
STYLEGAN2 = {"kind": "stylegan2", "z_dim": 16, "w_dim": 16, "channel_base": 512, "channel_max": 32, "mapping_layers": 2}
BASES = {"dcgan": BASE, "stylegan2": STYLEGAN2, "half": STYLEGAN2 | {"half_resolutions": 2, "conv_clamp": 256}}
LAST = f"{SPEC.total_nimg:09d}.safetensors"


def run_on_gpu(base: dict, **fields) -> Run:
    run = tiny_run(base=base, **fields)
    run.G.cuda()
    run.D.cuda()
    for regularizer in run.regularizers:
        if isinstance(regularizer, torch.nn.Module):
            regularizer.cuda()
    return run


def finish(run: Run, out: Path, **settings) -> list[dict]:
    """Train to the end; return the lines of the statistics."""
    (out / "out").mkdir(parents=True, exist_ok=True)
    train(run, dataclasses.replace(SPEC, **settings), state_dir=out / "state", out_dir=out / "out")
    return [json.loads(line) for line in (out / "out" / "stats.jsonl").read_text().splitlines()]


def snapshot(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / "out" / "snapshots" / LAST)[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("base", BASES)
def test_precisions(tmp_path: Path, base: str, precision: str) -> None:
    """Losses start close to those of a CPU; weights stay float32 and finite."""
    lines = finish(run_on_gpu(BASES[base]), tmp_path / "gpu", precision=precision)
    (tmp_path / "cpu").mkdir()
    expected = finish(tiny_run(base=BASES[base]), tmp_path / "cpu")
    tolerance = 1e-3 if precision == "fp32" and base != "half" else 0.1
    assert lines[0]["loss/D"] == pytest.approx(expected[0]["loss/D"], rel=tolerance, abs=tolerance)
    weights = [t for name, t in snapshot(tmp_path / "gpu").items() if t.is_floating_point() and "optimizer" not in name]
    assert all(t.dtype in (torch.float32, torch.float64) and t.isfinite().all() for t in weights)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("base", ["dcgan", "half"])
def test_a_signal_saves_the_state_and_the_training_continues(tmp_path: Path, base: str, precision: str) -> None:
    """With deterministic convolutions the end has the bits of a training that was not interrupted."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        finish(run_on_gpu(BASES[base]), tmp_path / "whole", precision=precision)
        run = run_on_gpu(BASES[base])
        batch = run.batch

        def signaling(index: torch.Tensor):
            if int(index[0]) == 40:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch(index)

        run.batch = signaling
        with pytest.raises(TryAgain):
            finish(run, tmp_path / "parts", precision=precision)
        finish(run_on_gpu(BASES[base]), tmp_path / "parts", precision=precision)
    finally:
        torch.use_deterministic_algorithms(False)
    whole, parts = snapshot(tmp_path / "whole"), snapshot(tmp_path / "parts")
    different = [name for name in whole if not torch.equal(whole[name], parts[name])]
    assert whole.keys() == parts.keys() and not different


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_divergence_stops_the_training(tmp_path: Path, precision: str) -> None:
    with pytest.raises(NumericalError, match=r"(loss|weight)"):
        finish(run_on_gpu(BASE), tmp_path, precision=precision, d_lr=1e30, g_lr=1e30)
    assert (tmp_path / "diverged").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("base", ["dcgan", "stylegan2"])
def test_compiled_networks(tmp_path: Path, base: str, precision: str) -> None:
    lines = finish(run_on_gpu(BASES[base]), tmp_path / "compiled", precision=precision, compile=True)
    expected = finish(run_on_gpu(BASES[base]), tmp_path / "eager", precision=precision)
    assert lines[0]["loss/D"] == pytest.approx(expected[0]["loss/D"], rel=0.05, abs=0.05)
    assert all(t.isfinite().all() for t in snapshot(tmp_path / "compiled").values() if t.is_floating_point())
