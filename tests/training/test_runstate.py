"""The state of regularizers: in every checkpoint, and part of what a continued run takes over."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from linear_style import LinearStyle
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from tiny import SPEC, tiny_run

from pygan.checkpoint import read_tensors, subset
from pygan.errors import ConfigError, TryAgain
from pygan.regularizers.lecam import LeCam
from pygan.regularizers.path_length import PathLength
from pygan.training.gan import Run, train
from pygan.training.runstate import RunState


def lecam() -> LeCam:
    return LeCam(weight=0.3, decay=0.9, start_step=3, form="official")


def styled_run() -> Run:
    """A run whose base has intermediate latents, with both regularizers that have a state."""
    torch.manual_seed(0)
    G = LinearStyle()
    G.A /= 100
    return tiny_run(G=G, regularizers=[lecam(), PathLength(weight=2.0, decay=0.01, batch_shrink=2, every=4)])


def run_in(path: Path, run: Run, spec=SPEC) -> dict[str, torch.Tensor]:
    """Train and return the last snapshot."""
    (path / "out").mkdir(parents=True, exist_ok=True)
    train(run, spec, state_dir=path / "state", out_dir=path / "out")
    return read_tensors(path / "out" / "snapshots" / f"{spec.total_nimg:09d}.safetensors")[0]


def state_of(regularizers: list[object]) -> RunState:
    G, D = nn.Linear(1, 1), nn.ModuleList([nn.Linear(1, 1)])
    optimizers = (torch.optim.Adam(network.parameters()) for network in (G, D))
    return RunState(G, D, nn.Linear(1, 1), *optimizers, regularizers)


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole = run_in(tmp_path / "whole", styled_run())
    interrupted = styled_run()
    batch = interrupted.batch

    def signalling(index):
        if index[0] == 20:
            signal.raise_signal(signal.SIGTERM)
        return batch(index)

    interrupted.batch = signalling
    with pytest.raises(TryAgain):
        run_in(tmp_path / "parts", interrupted)
    parts = run_in(tmp_path / "parts", styled_run())
    assert whole.keys() == parts.keys()
    assert not [name for name in whole if not torch.equal(whole[name], parts[name])]
    assert all(whole[f"regularizers.{name}"] != 0 for name in ("LeCam.real_anchor", "PathLength.mean"))


def test_a_continued_run_takes_over_the_anchors(tmp_path):
    whole = run_in(tmp_path / "whole", tiny_run(regularizers=[lecam()]))
    half = read_tensors(tmp_path / "whole" / "out" / "snapshots" / "000000040.safetensors")[0]
    rest = tiny_run(regularizers=[lecam()], init=half, init_nimg=40)
    continued = run_in(tmp_path / "rest", rest, replace(SPEC, snapshots=(40, 80)))
    for name, tensor in continued.items():
        if not name.startswith("G_ema."):  # the average starts again
            assert torch.equal(tensor, whole[name]), name


def test_regularizers_may_come_and_go_between_runs():
    first = state_of([lecam(), PathLength(2.0, 0.01, 2, 4)])
    first.networks["regularizers"]["LeCam"].real_anchor.fill_(5.0)
    first.networks["regularizers"]["PathLength"].mean.fill_(7.0)
    tensors = first.tensors()
    assert subset(tensors, "regularizers.").keys() == {"LeCam.real_anchor", "LeCam.gen_anchor", "PathLength.mean"}

    one = PathLength(2.0, 0.01, 2, 4)
    state_of([one]).load(tensors, "a snapshot")
    assert one.mean == 7.0

    fresh = PathLength(2.0, 0.01, 2, 4)
    state_of([fresh]).load(state_of([lecam()]).tensors(), "a snapshot")
    assert fresh.mean == 0.0


def test_a_regularizer_without_a_state_leaves_no_trace():
    assert not subset(state_of([object()]).tensors(), "regularizers.")


def test_a_state_of_another_shape_is_refused():
    tensors = state_of([lecam()]).tensors()
    tensors["regularizers.LeCam.real_anchor"] = torch.zeros(4)
    with pytest.raises(ConfigError, match=r"does not fit regularizers; .* LeCam\.real_anchor is \[4\], expected \[\]"):
        state_of([lecam()]).load(tensors, "a snapshot")


def test_two_of_one_class_are_refused():
    with pytest.raises(ValueError, match=r"regularizers: got \['LeCam', 'LeCam'\], expected each of them once"):
        state_of([lecam(), lecam()])
