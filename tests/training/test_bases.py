"""Every base network of a GAN trains through the loop, and an interrupted training ends with the same bits."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny import SPEC, tiny_run

from pygan.checkpoint import read_tensors
from pygan.errors import TryAgain
from pygan.training.gan import train

SPEC = replace(SPEC, total_nimg=24, snapshots=(24,), checkpoint_nimg=8, tick_nimg=8)
TINY = {
    "dcgan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
    "sngan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
    "biggan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
    "stylegan2": {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping_layers": 2},
}


def trained(out: Path, kind: str, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """Train in `out`, interrupted by a signal at `stop_at` images; return the last snapshot."""
    run = tiny_run(base={"kind": kind} | TINY[kind], resolution=32)
    batch = run.batch

    def signalling(index: torch.Tensor):
        if stop_at is not None and index[0] == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return batch(index)

    run.batch = signalling
    out.mkdir(exist_ok=True)
    train(run, SPEC, state_dir=out / "state", out_dir=out)
    return read_tensors(out / "snapshots" / "000000024.safetensors")[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TINY)
def test_an_interrupted_training_ends_with_the_same_bits(kind, tmp_path):
    whole = trained(tmp_path / "whole", kind)
    with pytest.raises(TryAgain, match="stopped by a signal at 16 images"):
        trained(tmp_path / "interrupted", kind, stop_at=12)
    resumed = trained(tmp_path / "interrupted", kind)
    assert whole.keys() == resumed.keys()
    assert not [name for name, value in whole.items() if not torch.equal(value, resumed[name])]
    assert all(value.isfinite().all() for value in whole.values())
