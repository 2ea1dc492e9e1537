"""States that do not belong to the run that is given them: another architecture, another augmentation, not finite."""

import logging
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from tiny import ADA, BASE, SPEC, tiny_run

from pygan.checkpoint import Checkpoints, read_tensors, write_tensors
from pygan.context import Context
from pygan.errors import ConfigError, DataError
from pygan.sampling import describe, load_generator
from pygan.spec import load_spec
from pygan.training.ema import Average
from pygan.training.gan import Run, train
from pygan.training.runstate import RunState

WIDER = BASE | {"g_channels": 6}
CONDITIONAL = BASE | {"conditional": True}


def state_of(run: Run) -> RunState:
    """The state that the loop would make for a run."""
    optimizers = (torch.optim.Adam(network.parameters()) for network in (run.G, run.D))
    return RunState(run.G, run.D, Average(run.G, 500.0, None).G, *optimizers, run.regularizers)


def conditional_run() -> Run:
    """As `tiny_run`, with three classes."""
    ctx = Context(resolution=16, num_classes=3)
    base = load_spec("pygan.networks", CONDITIONAL)
    run = tiny_run(G=base.generator(ctx))
    run.D[0].network = base.discriminator(ctx)
    return run


def trained(path: Path, run: Run, total: int = SPEC.total_nimg) -> dict[str, torch.Tensor]:
    (path / "out").mkdir(parents=True, exist_ok=True)
    train(run, SPEC, state_dir=path / "state", out_dir=path / "out")
    return read_tensors(path / "out" / "snapshots" / f"{total:09d}.safetensors")[0]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained(tmp_path_factory.mktemp("run"), tiny_run())


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda: tiny_run(base=WIDER), r"does not fit G; first differences: .* is \[.*\], expected \[.*\]; "),
        (conditional_run, r"does not fit G; first differences: no .*; no .*"),
    ],
)
def test_a_snapshot_of_another_network_is_refused_with_the_differences(snapshot, run, words, tmp_path):
    run = run()
    run.init, run.init_nimg = snapshot, 40
    with pytest.raises(ConfigError, match=words) as caught:
        trained(tmp_path, run)
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)


def test_a_snapshot_of_another_resolution_is_refused_with_the_differences(snapshot, tmp_path):
    ctx = Context(resolution=32)
    base = load_spec("pygan.networks", BASE)
    run = tiny_run(G=base.generator(ctx), init=snapshot, init_nimg=40)
    with pytest.raises(ConfigError, match="the snapshot to start from: does not fit G; first differences: "):
        trained(tmp_path, run)


def test_a_checkpoint_of_another_network_is_refused_and_kept(tmp_path):
    trained(tmp_path, tiny_run())
    before = sorted((tmp_path / "state").iterdir())
    with pytest.raises(ConfigError, match="does not fit G; first differences: "):
        trained(tmp_path, tiny_run(base=WIDER))
    assert sorted((tmp_path / "state").iterdir()) == before


def test_the_part_that_fits_is_taken_when_asked_for_and_told(snapshot, caplog):
    wider = tiny_run(base=WIDER, seed=1)
    state, before = state_of(wider), {k: v.clone() for k, v in wider.G.state_dict().items()}
    with caplog.at_level(logging.INFO):
        state.load(snapshot, "old.safetensors", partial=True)
    G = wider.G.state_dict()
    fits = {k for k, v in G.items() if snapshot[f"G.{k}"].shape == v.shape}
    assert 0 < len(fits) < len(G)
    for name, tensor in G.items():
        assert torch.equal(tensor, snapshot[f"G.{name}"] if name in fits else before[name]), name
    line = next(r.getMessage() for r in caplog.records if " for G," in r.getMessage())
    assert line.startswith(f"old.safetensors: took {len(fits)} of {len(G)} tensors for G, left ")
    assert "expected [" in line
    D = wider.D.state_dict()  # the same in both runs
    assert all(torch.equal(D[name], snapshot[f"D.{name}"]) for name in D)
    moments = {k for k in state.tensors() if k.startswith("opt_G.") and k.endswith(".exp_avg")}
    assert moments == {f"opt_G.{k}.exp_avg" for k, _ in wider.G.named_parameters() if k in fits}


def test_another_augmentation_starts_anew(snapshot, tmp_path, caplog):
    run = tiny_run(augment=ADA, init=snapshot, init_nimg=40)
    with caplog.at_level(logging.INFO):
        adaptive = trained(tmp_path / "ada", run)
    lines = [r.getMessage() for r in caplog.records if "augmentation" in r.getMessage()]
    assert lines == ["the snapshot to start from: D.0 has another augmentation now, whose state starts anew"]
    assert adaptive["D.0.augment.p"] != ADA["p"]

    back = tiny_run(init=adaptive, init_nimg=40)  # the other way round: its state is dropped
    assert not any(k.startswith("D.0.augment.") for k in trained(tmp_path / "diffaug", back))

    again = tiny_run(augment=ADA)  # the same augmentation goes on where it stood
    state_of(again).load(adaptive, "a snapshot")
    assert torch.equal(again.D[0].augment.p, adaptive["D.0.augment.p"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_refused_by_name(snapshot, value, tmp_path):
    name = next(k for k in snapshot if k.startswith("opt_D."))
    broken = snapshot | {name: torch.full_like(snapshot[name], value)}
    words = f"1 tensors are not finite: {name}"
    with pytest.raises(DataError, match="the snapshot to start from: refused, " + words):
        trained(tmp_path / "continued", tiny_run(init=broken, init_nimg=40))

    Checkpoints(tmp_path / "resumed" / "state").save("000000000040", broken, {"nimg": 40, "seconds": 0.0})
    with pytest.raises(DataError, match=words):
        trained(tmp_path / "resumed", tiny_run())


def test_a_generator_that_is_not_finite_is_refused(snapshot, tmp_path):
    path = tmp_path / "broken.safetensors"
    name = next(k for k in snapshot if k.startswith("G_ema."))
    tensors = snapshot | {name: torch.full_like(snapshot[name], float("nan"))}
    write_tensors(path, tensors, describe(BASE, Context(resolution=16), 40))
    with pytest.raises(DataError, match=f"{path.name}: refused, 1 tensors are not finite: {name}"):
        load_generator(path)
